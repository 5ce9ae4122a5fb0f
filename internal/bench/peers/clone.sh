#!/bin/bash
# clone.sh COUNT: root disks as a script makes them.
set -eu
for i in $(seq "$1"); do
	rbd --id cinder clone images/guest@snap "vms/bench-$i"
	rbd --id cinder resize --no-progress --size 10G "vms/bench-$i"
done
