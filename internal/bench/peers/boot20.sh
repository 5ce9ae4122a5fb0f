#!/bin/bash
# boot20.sh: twenty machines at once.
set -eu
pids=()
for i in $(seq 20); do
	"$DIR/peers/boot.sh" "web-$i" &
	pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done
