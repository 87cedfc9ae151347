#!/usr/bin/env bash
# Aurora DSQL clusters for tests: makes one, and sees to it that none is left.
#
#     .ci/dsql-cluster.sh create OWNER     prints the id of a new cluster, once it can be connected to
#     .ci/dsql-cluster.sh delete ID        deletes it, and waits until it is gone
#     .ci/dsql-cluster.sh sweep            deletes every cluster for tests that is older than 3 hours
#
# Clusters for tests carry the tag booking-service-test, and no other is ever deleted. Needs the AWS CLI with
# credentials and AWS_REGION, and jq.
set -euo pipefail

readonly TAG=booking-service-test
readonly AGE_SECONDS_MAX=10800

usage() {
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
}

# Whether cluster $1 was made by this script: what is not, is not deleted.
is_for_tests() {
  aws dsql get-cluster --identifier "$1" --output json | jq -e --arg tag "$TAG" '.tags | has($tag)' >/dev/null
}

create() {
  local id
  id=$(aws dsql create-cluster --no-deletion-protection-enabled --tags "$TAG=$1" \
    --query identifier --output text)
  # Printed before it is waited for: whoever called has to know what to delete.
  echo "$id"
  aws dsql wait cluster-active --identifier "$id"
}

delete() {
  is_for_tests "$1" || {
    echo "cluster $1 has no tag $TAG: it is left alone" >&2
    return 1
  }
  aws dsql delete-cluster --identifier "$1" --query status --output text
  aws dsql wait cluster-not-exists --identifier "$1"
}

sweep() {
  local id ids made status=0
  ids=$(aws dsql list-clusters --output json | jq -r '.clusters[].identifier')
  for id in $ids; do
    made=$(aws dsql get-cluster --identifier "$id" --output json |
      jq -r --arg tag "$TAG" 'select((.tags // {}) | has($tag)) | .creationTime') || status=1
    [[ -n $made ]] || continue
    if (($(date +%s) - $(date -d "$made" +%s) > AGE_SECONDS_MAX)); then
      echo "left over since $made: $id"
      delete "$id" || status=1
    fi
  done
  return "$status"
}

case ${1:-}:$# in
  create:2) create "$2" ;;
  delete:2) delete "$2" ;;
  sweep:1) sweep ;;
  *) usage ;;
esac
