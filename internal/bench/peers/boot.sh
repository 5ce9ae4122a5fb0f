#!/bin/bash
# boot.sh NAME: a machine as a script makes it.
set -eu
id=$(cat /proc/sys/kernel/random/uuid)
rbd --id cinder clone images/guest@snap "vms/${id}_disk"
rbd --id cinder resize --no-progress --size 10G "vms/${id}_disk"
sed "s/MACHINE-NAME/$1/; s/00000000-0000-4000-8000-000000000000/$id/g" "$DIR/machine.xml" > "$DIR/$1.xml"
virsh -q define "$DIR/$1.xml"
virsh -q start "$1"
