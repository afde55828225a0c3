#!/bin/sh
# Run by the postgres image when it makes the cluster: a standby may sign in by its password.
set -eu
echo "host replication all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
