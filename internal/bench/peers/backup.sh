#!/bin/bash
# backup.sh VOLUME: what changed since the last time, to another pool.
set -eu -o pipefail
last=$(cat "$DIR/last")
next=$((last + 1))
rbd --id cinder snap create --no-progress "$1@theirs-$next"
rbd --id cinder export-diff --no-progress --from-snap "theirs-$last" "$1@theirs-$next" - |
	rbd --id cinder-backup import-diff --no-progress - backups/theirs
echo "$next" > "$DIR/last"
