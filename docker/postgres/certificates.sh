#!/bin/sh
# Makes what PostgreSQL and its clients need for TLS: a CA, and a certificate that it signed. For trying out.
#
#     certificates.sh HOST CA_DIR SERVER_DIR
#
# HOST is the name that clients connect to. CA_DIR gets ca.pem, for them; SERVER_DIR gets server.pem and
# server.key. The CA's own key is thrown away: nothing more can be signed with it. What is there already and
# good for another month is left alone.
set -eu

host=$1 ca_dir=$2 server_dir=$3
days=825 month_seconds=2592000

if [ -r "$ca_dir/ca.pem" ] &&
  openssl x509 -checkend "$month_seconds" -noout -in "$server_dir/server.pem" >/dev/null 2>&1; then
  echo 'the certificates are still good'
  exit 0
fi

umask 077
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days "$days" \
  -subj '/CN=booking-service trial CA' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
  -keyout ca.key -out ca.pem 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$host" \
  -keyout server.key -out server.csr 2>/dev/null
cat >extensions <<EXTENSIONS
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:$host
EXTENSIONS
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days "$days" \
  -extfile extensions -out server.pem 2>/dev/null

# PostgreSQL takes a key only of its own user or of root, and readable to nobody else.
chown "${OWNER:-postgres:postgres}" server.key
chmod 644 ca.pem server.pem
chmod 755 "$ca_dir" "$server_dir"
mv server.key server.pem "$server_dir/"
mv ca.pem "$ca_dir/"
echo "made a CA, and a certificate for $host"
