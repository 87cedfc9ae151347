#!/usr/bin/env bash
# Compares the service with the usual way to book, on this machine:
#
#     benches/compare.sh [--runs 3] [--seconds 5] [--only create,read,...] [--no-build] [--out DIR]
#
# Starts a PostgreSQL of its own, fsync on, and measures pgbench with the usual transaction, a gRPC service
# that does the usual transaction, this service, and an rpc that does nothing. Writes compare.md,
# compare.svg and compare.json to benches/results. Takes about 20 minutes; leave the machine alone.
#
# Needs Rust, Python 3.9 or newer, and an installed PostgreSQL with pgbench (BOOKING_PG_BIN_DIR says where).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "$*" >&2
  exit 1
}

build=yes
arguments=()
for argument in "$@"; do
  case $argument in
    --no-build) build=no ;;
    *) arguments+=("$argument") ;;
  esac
done

command -v python3 >/dev/null || fail 'no python3: install it first'

# The newest PostgreSQL with everything that is needed.
find_postgres() {
  local dir
  for dir in "${BOOKING_PG_BIN_DIR:-}" "$(pg_config --bindir 2>/dev/null || true)" \
    $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin | sort -rV); do
    if [[ -n $dir && -x $dir/initdb && -x $dir/postgres && -x $dir/pgbench && -x $dir/psql ]]; then
      echo "$dir"
      return
    fi
  done
  return 1
}
bin=$(find_postgres) ||
  fail 'no PostgreSQL with initdb, psql and pgbench: install it (Debian: apt-get install postgresql), or
say with BOOKING_PG_BIN_DIR where they are'

if [[ $build == yes ]]; then
  cargo build --locked --release --bins --example load --example peers
fi
target=$(cargo metadata --locked --no-deps --format-version 1 |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')

# PostgreSQL refuses to run as root.
as=()
if ((EUID == 0)); then
  user=postgres
  id "$user" >/dev/null 2>&1 || user=nobody
  as=(setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups)
fi

scratch=$(mktemp -d "${TMPDIR:-/tmp}/compare.XXXXXX")
finish() {
  ${as[@]+"${as[@]}"} "$bin/pg_ctl" stop --silent --mode=immediate -D "$scratch/data" >/dev/null 2>&1 || true
  rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM
chmod 755 "$scratch"
mkdir "$scratch/data" "$scratch/socket"
if ((EUID == 0)); then chown "$user" "$scratch/data" "$scratch/socket"; fi

export LC_ALL=C
(
  cd "$scratch"
  ${as[@]+"${as[@]}"} "$bin/initdb" --username=postgres --auth=trust --encoding=UTF8 -D data >/dev/null
  # All else, fsync and synchronous_commit among it, as it comes.
  ${as[@]+"${as[@]}"} "$bin/pg_ctl" start --silent --wait -D data --log data/log -o \
    "-c listen_addresses='' -c unix_socket_directories=$scratch/socket -c max_connections=300"
)

python3 -B benches/compare.py --pg-bin "$bin" --socket "$scratch/socket" --scratch "$scratch" \
  --release "$target/release" ${arguments[@]+"${arguments[@]}"}
