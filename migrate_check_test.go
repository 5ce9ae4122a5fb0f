// Each finding of the preflight, provoked for real: hosts, networks, secrets and files
// are broken as they break in the field.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
	"github.com/vmdisk/vmdisk/secret"
	"libvirt.org/go/libvirt"
)

// answers are those of a preflight that say NO, by name, with their cures.
func answers(t *testing.T, checks []migrate.Check) (no map[string]string) {
	t.Helper()
	no = map[string]string{}
	for _, c := range checks {
		if !c.OK {
			no[c.Name] += c.Detail + "\n  " + c.Cure + "\n"
			if c.Err == nil {
				t.Errorf("%s has no error", c.Name)
			}
		}
	}
	return no
}

// parked is a machine that is shut off, which costs little, and that it is so is the
// only thing wrong with it.
func parked(t *testing.T) VM {
	t.Helper()
	return bootOf(t, open(t, 0), BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
}

// redefined changes a machine's definition.
func redefined(t *testing.T, vm VM, oldnew ...string) {
	t.Helper()
	must(t, domain.Redefine(t.Context(), connected(t, 0), vm.UUID, func(xml string) (string, bool, error) {
		changed := strings.NewReplacer(oldnew...).Replace(xml)
		return changed, changed != xml, nil
	}))
}

// checked asks whether a machine of compute1 could move to compute2, and finds nothing
// changed by that.
func checked(t *testing.T, vm VM, dest string) map[string]string {
	t.Helper()
	was := stateNow(t)
	checks, err := open(t, 0).CheckMigration(t.Context(), vm.UUID, dest, MigrateOptions{})
	was.unchanged(t)
	var failed *migrate.CheckError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return answers(t, checks.Checks)
}

// finds compares which questions were answered with NO, and what was said then.
func finds(t *testing.T, no map[string]string, want map[string]string) {
	t.Helper()
	for name, said := range no {
		if _, ok := want[name]; !ok {
			t.Errorf("finding %s: %s", name, said)
		}
	}
	for name, says := range want {
		if said, ok := no[name]; !ok || !strings.Contains(said, says) {
			t.Errorf("%s: %q, want %q in it", name, said, says)
		}
	}
}

const off = "vmdisk start"

// network is a network of one host. A started one needs no bridge as long as nobody
// uses it.
func network(t *testing.T, host int, name string, started bool) {
	t.Helper()
	conn := connected(t, host)
	n, err := conn.NetworkDefineXML("<network><name>" + name + "</name><forward mode='bridge'/><bridge name='br-none'/></network>")
	must(t, err)
	defer func() { _ = n.Free() }()
	noNetwork(t, host, name)
	if started {
		must(t, n.Create())
	}
}

// noNetwork removes a network when the test ends.
func noNetwork(t *testing.T, host int, name string) {
	t.Helper()
	uri := testLab.Hosts[host].URI
	t.Cleanup(func() {
		conn, err := domain.Connect(context.Background(), uri, 0)
		must(t, err)
		defer conn.Close()
		n, err := conn.LookupNetworkByName(name)
		if err != nil {
			return
		}
		_ = n.Destroy()
		must(t, errors.Join(n.Undefine(), n.Free()))
	})
}

// Whatever is wrong, all of it is said at once, and how to cure it.
func TestCheckFindsAllAtOnce(t *testing.T) {
	vm := parked(t)
	// An emulator that only the source has: /run is a host's own.
	own := "/run/qemu-" + vm.UUID
	onHostRun(t, 0, "sh", "-c", "printf '#!/bin/sh\\nexec qemu-system-x86_64 \"$@\"\\n' >"+own+" && chmod +x "+own)
	medium := filepath.Join(t.TempDir(), "rescue.iso")
	redefined(t, vm,
		"/usr/bin/qemu-system-x86_64", own,
		"<memory unit='KiB'>131072</memory>", "<memory unit='TiB'>10</memory>",
		"<currentMemory unit='KiB'>131072</currentMemory>", "",
		"cache='writeback'", "cache='unsafe'",
		"</devices>", `<disk type='file' device='cdrom'><source file='`+medium+`'/><target dev='hda' bus='ide'/><readonly/></disk>
			<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0' bus='3' slot='4' function='1'/></source></hostdev>
			<interface type='network'><source network='lan-`+vm.UUID+`'/></interface>
			<interface type='bridge'><source bridge='br-`+vm.UUID[:8]+`'/></interface>
			<interface type='direct'><source dev='lo'/></interface>
			</devices>`)
	snapshot, err := definition(t, vm).CreateSnapshotXML("<domainsnapshot><name>s1</name><disks/></domainsnapshot>", libvirt.DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)
	if err == nil {
		must(t, snapshot.Free())
	}
	other, err := connected(t, 1).DomainDefineXML("<domain type='qemu'><name>" + vm.Name + "</name><memory>1024</memory><os><type>hvm</type></os></domain>")
	must(t, err)
	defer func() { must(t, errors.Join(other.Undefine(), other.Free())) }()

	no := checked(t, vm, testLab.Hosts[1].URI)
	finds(t, no, map[string]string{
		"state":          off,
		"emulator":       own,
		"memory":         "GiB of memory free, " + vm.Name + " has 10240 GiB",
		"disk cache":     "vda has cache=unsafe",
		"no local parts": medium,
		"networks":       "no network lan-" + vm.UUID,
		"name is free":   "domrename",
	})
	for _, says := range []string{"03:04.1", "change-media " + vm.Name + " hda --eject"} {
		if !strings.Contains(no["no local parts"], says) {
			t.Errorf("%q is not in %s", says, no["no local parts"])
		}
	}
	if !strings.Contains(no["networks"], "ip link add br-"+vm.UUID[:8]) || strings.Contains(no["networks"], " lo\n") {
		t.Errorf("networks: %s", no["networks"])
	}
}

// definition is a machine of compute1.
func definition(t *testing.T, vm VM) *libvirt.Domain {
	t.Helper()
	d, err := connected(t, 0).LookupDomainByUUIDString(vm.UUID)
	must(t, err)
	t.Cleanup(func() { _ = d.Free() })
	return d
}

// onHostRun runs a command on a host.
func onHostRun(t *testing.T, host int, name string, args ...string) {
	t.Helper()
	if out, err := testLab.Hosts[host].Command(context.WithoutCancel(t.Context()), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// What the destination has of another host, or a cluster that it cannot read.
func TestCheckOpensEachDisk(t *testing.T) {
	vm, dest := parked(t), testLab.Hosts[1]
	t.Run("all is well", func(t *testing.T) {
		finds(t, checked(t, vm, dest.URI), map[string]string{"state": off})
	})
	t.Run("no ceph.conf", func(t *testing.T) {
		dir := filepath.Dir(testLab.Conf)
		onHostRun(t, 1, "mount", "-t", "tmpfs", "none", dir)
		defer onHostRun(t, 1, "umount", dir)
		finds(t, checked(t, vm, dest.URI), map[string]string{"state": off, "ceph.conf": testLab.Conf})
	})
	// The machine's XML names the monitors: what else a ceph.conf says does not lead
	// its disks into another cluster.
	t.Run("ceph.conf of another cluster", func(t *testing.T) {
		good, err := os.ReadFile(dest.Conf)
		must(t, err)
		defer func() { must(t, os.WriteFile(dest.Conf, good, 0o644)) }()
		must(t, os.WriteFile(dest.Conf, fmt.Appendf(nil, "[global]\nfsid = %s\nmon host = 127.0.0.9:1\n", uuid.NewString()), 0o644))
		finds(t, checked(t, vm, dest.URI), map[string]string{"state": off})
	})
	t.Run("secret is wrong", func(t *testing.T) {
		h, conn := open(t, 0), connected(t, 1)
		cluster := mustCluster(t, h)
		_, _, err := secret.Ensure(t.Context(), conn, h.secretUUID(cluster), "cinder", wrongKey(t), "")
		must(t, err)
		finds(t, checked(t, vm, dest.URI), map[string]string{"state": off})
		must(t, secret.Remove(conn, h.secretUUID(cluster)))
	})
	t.Run("secret is another's", func(t *testing.T) {
		conn, id := connected(t, 1), uuid.NewString()
		_, _, err := secret.Ensure(t.Context(), conn, id, "cinder", wrongKey(t), "")
		must(t, err)
		defer func() { must(t, secret.Remove(conn, id)) }()
		finds(t, checked(t, vm, dest.URI), map[string]string{"state": off, "secret": "secret-undefine " + id})
	})
	t.Run("a disk that the key does not open", func(t *testing.T) {
		aliens(t, disk.BackupPool, "x-"+vm.UUID)
		second := strings.NewReplacer("vms/"+disk.RootDiskName(vm.UUID), "backups/x-"+vm.UUID, "vda", "vdb").Replace(rootDisk(t, vm))
		redefined(t, vm, "</devices>", second+"</devices>")
		defer virsh(t, 0, "detach-disk", vm.Name, "vdb", "--config")
		no := checked(t, vm, dest.URI)
		finds(t, no, map[string]string{"state": off, "disks open": "rbd --id cinder info backups/x-" + vm.UUID})
		if strings.Contains(no["disks open"], disk.RootDiskName(vm.UUID)) {
			t.Errorf("the root disk can be opened: %s", no["disks open"])
		}
	})
}

// The way from here is not the way from the source: a program that makes the
// connection is only here.
func TestCheckAsksTheSource(t *testing.T) {
	vm, dest := parked(t), testLab.Hosts[1]
	dir, err := os.MkdirTemp("/run", "vmdisk-test-")
	must(t, err)
	defer os.RemoveAll(dir)
	tunnel := filepath.Join(dir, "tunnel")
	_, port, _ := strings.Cut(strings.TrimSuffix(dest.URI, "/system"), dest.Addr+":")
	script := "#!/bin/bash\nexec 3<>/dev/tcp/" + dest.Addr + "/" + port + "\ncat <&3 &\ncat >&3\nkill $!\n"
	must(t, os.WriteFile(tunnel, []byte(script), 0o755))
	finds(t, checked(t, vm, "qemu+ext://"+dest.Addr+"/system?command="+tunnel),
		map[string]string{"state": off, "reachable": testLab.Hosts[0].Name + " does not reach"})
}

// What --fix can do is done, said, and stays.
func TestCheckFixes(t *testing.T) {
	vm := parked(t)
	missing, stopped := "m-"+vm.UUID, "s-"+vm.UUID
	network(t, 0, missing, true)
	noNetwork(t, 1, missing)
	network(t, 1, stopped, false)
	medium := filepath.Join(t.TempDir(), "rescue.iso")
	must(t, os.WriteFile(medium, make([]byte, 1<<20), 0o644))
	redefined(t, vm, "</devices>", `<disk type='file' device='cdrom'><source file='`+medium+`'/><target dev='hda' bus='ide'/><readonly/></disk>
		<interface type='network'><source network='`+missing+`'/></interface>
		<interface type='network'><source network='`+stopped+`'/></interface></devices>`)
	want := map[string]string{"state": off, "no local parts": medium, "networks": "virsh net-start " + stopped}
	finds(t, checked(t, vm, testLab.Hosts[1].URI), want)

	var said []string
	cfg := config(0)
	cfg.Observe = func(e Event) {
		watchLeaks(e)
		if e.Kind == Note && e.Step == "fix" {
			said = append(said, e.Detail)
		}
	}
	h, err := Open(t.Context(), cfg)
	must(t, err)
	defer func() { must(t, h.Close()) }()
	checks, err := h.CheckMigration(t.Context(), vm.UUID, testLab.Hosts[1].URI, MigrateOptions{Fix: true})
	if !errors.Is(err, domain.ErrNotRunning) {
		t.Errorf("error is %v", err)
	}
	finds(t, answers(t, checks.Checks), map[string]string{"state": off})
	must(t, secret.Remove(connected(t, 1), h.secretUUID(mustCluster(t, h)))) // it stayed, too
	slices.Sort(said)
	if len(said) != 3 || !strings.Contains(said[0], missing) || !strings.Contains(said[1], stopped) || !strings.Contains(said[2], medium) {
		t.Errorf("it said %q", said)
	}
	finds(t, checked(t, vm, testLab.Hosts[1].URI), map[string]string{"state": off})
}

// wrongKey is a key of no user of the cluster.
func wrongKey(t *testing.T) secret.Key {
	t.Helper()
	key, err := secret.ParseKey("AQAAAAAAAAAAABAA" + "AAAAAAAAAAAAAAAAAAAAAA==")
	must(t, err)
	return key
}

// aliens is an image that only the administrator may open.
func aliens(t *testing.T, pool, image string) {
	t.Helper()
	withCeph(t, func(conn *rados.Conn) {
		io, err := conn.OpenIOContext(pool)
		must(t, err)
		defer io.Destroy()
		must(t, rbd.CreateImage(io, image, 1<<20, rbd.NewRbdImageOptions()))
	})
	t.Cleanup(func() {
		withCeph(t, func(conn *rados.Conn) {
			io, err := conn.OpenIOContext(pool)
			must(t, err)
			defer io.Destroy()
			must(t, rbd.RemoveImage(io, image))
		})
	})
}

// rootDisk is the element of a machine's root disk.
func rootDisk(t *testing.T, vm VM) string {
	t.Helper()
	text, err := definition(t, vm).GetXMLDesc(0)
	must(t, err)
	_, rest, _ := strings.Cut(text, "<disk ")
	element, _, _ := strings.Cut(rest, "</disk>")
	element, address, _ := strings.Cut(element, "<address")
	if _, after, ok := strings.Cut(address, "/>"); ok {
		element += after
	}
	return "<disk " + element + "</disk>"
}

// A guest that runs and writes notices nothing of the preflight: it keeps the lock of
// its disk. What stands in its way is cured, and it moves.
func TestMigrateFixes(t *testing.T) {
	h := open(t, 0)
	vm := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	medium := filepath.Join(t.TempDir(), "rescue.iso")
	must(t, os.WriteFile(medium, make([]byte, 1<<20), 0o644))
	redefined(t, vm, "</devices>", `<disk type='file' device='cdrom'><source file='`+medium+`'/><target dev='hda' bus='ide'/><readonly/></disk></devices>`)
	_, err := h.Start(t.Context(), vm.UUID)
	must(t, err)
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	owner := lockOwner(t, vm)
	finds(t, checked(t, vm, testLab.Hosts[1].URI), map[string]string{"no local parts": medium})
	if now := lockOwner(t, vm); owner == "" || now != owner {
		t.Errorf("the disk's lock was %s's, and is %s's", owner, now)
	}
	c.writes(t, 0, "vda")

	was := stateNow(t)
	_, err = h.Migrate(t.Context(), vm.UUID, testLab.Hosts[1].URI, MigrateOptions{NoForecast: true})
	var failed *migrate.CheckError
	if !errors.As(err, &failed) || !errors.Is(err, migrate.ErrUnsafe) || len(failed.Failed) != 1 || failed.Failed[0].Cure == "" {
		t.Errorf("error is %v", err)
	}
	was.unchanged(t)

	m, err := h.Migrate(t.Context(), vm.UUID, testLab.Hosts[1].URI, MigrateOptions{Fix: true, NoForecast: true})
	must(t, err)
	if m.To != testLab.Hosts[1].Name {
		t.Errorf("it is on %s", m.To)
	}
	if text := virsh(t, 1, "dumpxml", vm.UUID); strings.Contains(text, medium) || !strings.Contains(text, "cdrom") {
		t.Error("the medium moved, or the drive did not")
	}
	c.writes(t, 1, "vda")
}

// lockOwner is who has the exclusive lock of a machine's root disk.
func lockOwner(t *testing.T, vm VM) (owner string) {
	t.Helper()
	withCeph(t, func(conn *rados.Conn) {
		io, err := conn.OpenIOContext(disk.VMPool)
		must(t, err)
		defer io.Destroy()
		img, err := rbd.OpenImageReadOnly(io, disk.RootDiskName(vm.UUID), rbd.NoSnapshot)
		must(t, err)
		defer img.Close()
		_, lockers, err := img.ListLockers()
		must(t, err)
		for _, l := range lockers {
			owner += l.Client
		}
	})
	return owner
}
