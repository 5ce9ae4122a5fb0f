// The rows of the table: what is done, by whom, and how much faster vmdisk is to be.

package main

import (
	"embed"
	"fmt"
	"os"
)

// peers are what a user would write, or already has.
//
//go:embed peers
var peers embed.FS

// setUp is once for all rows: an image that everything is cloned from, and libvirt's
// secret.
const setUp = `$VMDISK image import $GUEST --name guest $PROGRESS
$FLOOR xml > $DIR/machine.xml
chmod +x $DIR/peers/*.sh`

// emptyPools ends rows that made images.
const emptyPools = `$FLOOR empty vms; $FLOOR empty volumes`

// dropMachines removes all machines, those that run first.
const dropMachines = `virsh -q list --name | xargs -r -n1 -P8 virsh -q destroy; virsh -q list --all --name | xargs -r $VMDISK rm $PROGRESS`

// prepareFiles makes what is imported: 2 GiB, of which 768 MiB hold random data.
const prepareFiles = `[ -e $DIR/raw ] && exit
	truncate -s 2G $DIR/raw
	for i in $(seq 0 191); do
		dd if=/dev/urandom of=$DIR/raw bs=4M count=1 seek=$((i * 512 / 192)) conv=notrunc status=none
	done
	qemu-img convert -f raw -O qcow2 $DIR/raw $DIR/qcow2`

// volumeID is the volume that is backed up.
const volumeID = "b0000000-0000-4000-8000-000000000000"

func (b *bench) works() []work {
	const volume = "volumes/volume-" + volumeID
	python := "/usr/bin/python3 $DIR/peers/"
	return []work{
		{
			name: "clone and grow 100 disks",
			ours: contender{name: "vmdisk disk create", command: "$VMDISK disk create --image guest --size 10G --count 100 $PROGRESS", clean: emptyPools},
			peers: []peer{
				{contender{name: "Nova's rbd_utils", command: python + "nova_disks.py 20", units: 0.2, clean: emptyPools, rounds: 3}, 10},
				{contender{name: "rbd clone, rbd resize", command: "$DIR/peers/clone.sh 20", units: 0.2, clean: emptyPools, rounds: 3}, 8},
				{contender{name: "floor", command: "$FLOOR clone vms bench-%d_disk 100", clean: emptyPools}, 0.95},
			},
		},
		{
			name: "boot a machine",
			ours: contender{name: "vmdisk boot", command: "$VMDISK boot web-$ROUND --image guest --size 10G --memory 128M $PROGRESS", clean: dropMachines},
			peers: []peer{
				{contender{name: "script of rbd and virsh", command: "$DIR/peers/boot.sh web-$ROUND", clean: dropMachines}, 1.5},
				{contender{name: "floor", command: "$FLOOR boot web-$ROUND 1", clean: dropMachines}, 0.9},
			},
		},
		{
			name: "boot 20 machines",
			ours: contender{name: "vmdisk boot --count 20", command: "$VMDISK boot web --count 20 --image guest --size 10G --memory 128M $PROGRESS", clean: dropMachines, rounds: 3},
			peers: []peer{
				{contender{name: "20 scripts at once", command: "$DIR/peers/boot20.sh", clean: dropMachines, rounds: 3}, 2},
				{contender{name: "floor", command: "$FLOOR boot web 20", clean: dropMachines, rounds: 3}, 0},
			},
		},
		{
			name: "import 2 GiB raw", prepare: prepareFiles,
			ours: contender{name: "vmdisk image import", command: "$VMDISK image import $DIR/raw --name bench $PROGRESS", clean: "$VMDISK image rm bench $PROGRESS"},
			peers: []peer{
				{contender{name: "qemu-img convert -m 16 -W", command: qemuImport("raw"), clean: "$RBD rm $PROGRESS images/bench"}, 1},
				{contender{name: "rbd import", command: "$RBD import $PROGRESS --image-format 2 $DIR/raw images/bench", clean: "$RBD rm $PROGRESS images/bench"}, 1.5},
				{contender{name: "Glance's RBD store", command: python + "glance_import.py $DIR/raw", clean: "$VMDISK image rm bench $PROGRESS", rounds: 1}, 10},
			},
		},
		{
			name: "import 2 GiB qcow2", prepare: prepareFiles,
			ours: contender{name: "vmdisk image import", command: "$VMDISK image import $DIR/qcow2 --name bench $PROGRESS", clean: "$VMDISK image rm bench $PROGRESS"},
			peers: []peer{
				{contender{name: "qemu-img convert -m 16 -W", command: qemuImport("qcow2"), clean: "$RBD rm $PROGRESS images/bench"}, 1},
				{contender{name: "convert, then rbd import", command: "qemu-img convert -O raw $DIR/qcow2 $DIR/tmp && $RBD import $PROGRESS --image-format 2 $DIR/tmp images/bench",
					clean: "rm $DIR/tmp; $RBD rm $PROGRESS images/bench"}, 1.5},
			},
		},
		{
			name: "list 1,000 disks", prepare: "$VMDISK disk create --image guest --size 10G --count 1000 $PROGRESS",
			ours:      contender{name: "vmdisk disk ls", command: "$VMDISK disk ls"},
			peers:     []peer{{contender{name: "rbd ls -l", command: "$RBD ls -l vms", rounds: 3}, 15}},
			unprepare: emptyPools,
		},
		{
			name: "list 1,000 volumes", prepare: "$FLOOR clone volumes volume-bench-%d 1000",
			ours:      contender{name: "vmdisk volume ls", command: "$VMDISK volume ls"},
			peers:     []peer{{contender{name: "rbd ls -l", command: "$RBD ls -l volumes", rounds: 3}, 15}},
			unprepare: emptyPools,
		},
		{
			name: "remove 100 disks",
			ours: contender{name: "vmdisk disk rm", change: "$VMDISK disk create --image guest --count 100 $PROGRESS", command: "$VMDISK disk rm $(rbd ls vms) $PROGRESS"},
			peers: []peer{{contender{name: "rbd rm", change: "$VMDISK disk create --image guest --count 20 $PROGRESS", units: 0.2,
				command: "for d in $($RBD ls vms); do $RBD rm $PROGRESS vms/$d; done"}, 2}},
		},
		{
			name: "back up 64 MiB changed of 20 GiB, 4 GiB of data",
			prepare: fmt.Sprintf(`$VMDISK volume create %s --size 20G $PROGRESS
				$RBD bench --io-type write --io-size 4M --io-total 4G --io-pattern seq %s
				$VMDISK backup create %s $PROGRESS
				rbd --id cinder-backup create --size 20G backups/theirs
				$RBD snap create $PROGRESS %s@theirs-0
				$RBD export-diff $PROGRESS %s@theirs-0 - | rbd --id cinder-backup import-diff $PROGRESS - backups/theirs
				echo 0 > $DIR/last`, volumeID, volume, volumeID, volume, volume),
			change: fmt.Sprintf("$RBD bench --io-type write --io-size 4M --io-total 64M --io-pattern rand %s", volume),
			ours:   contender{name: "vmdisk backup create", command: fmt.Sprintf("$VMDISK backup create %s --incremental $PROGRESS", volumeID)},
			peers: []peer{
				{contender{name: "rbd export-diff, import-diff", command: "$DIR/peers/backup.sh " + volume}, 1},
				{contender{name: "rbd export, all of it", command: fmt.Sprintf("$RBD export $PROGRESS %s - > /dev/null", volume)}, 5},
			},
			unprepare: fmt.Sprintf(`for b in $($VMDISK backup ls -o json | jq -r '.[].id' | tac); do $VMDISK backup rm $b $PROGRESS; done
				$RBD snap purge $PROGRESS %s; rbd --id cinder-backup snap purge $PROGRESS backups/theirs; rbd --id cinder-backup rm $PROGRESS backups/theirs; %s`, volume, emptyPools),
		},
		{
			name: "list ten volumes, from cold", prepare: "$FLOOR clone volumes volume-bench-%d 10",
			ours:      contender{name: "vmdisk volume ls", command: "$VMDISK volume ls"},
			peers:     []peer{{contender{name: "rbd ls", command: "$RBD ls volumes"}, 1}},
			unprepare: emptyPools,
		},
	}
}

func qemuImport(format string) string {
	return fmt.Sprintf("qemu-img convert -m 16 -W -f %s -O raw $DIR/%s rbd:images/bench:id=cinder:conf=$CEPH_CONF", format, format)
}

// writePeers puts the peers where the commands find them.
func (b *bench) writePeers() error { return os.CopyFS(b.dir, peers) }
