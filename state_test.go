// What there is in the cluster and on the hosts, one line a thing, read with other
// means than the library's: what a workflow left shows as a difference.

package vmdisk

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/secret"
	"libvirt.org/go/libvirt"
)

// state is everything that a workflow could leave: what rados and the hosts' libvirts
// hold, one line a thing.
type state []string

// stateNow reads it with other means than the library's.
func stateNow(t testing.TB) state {
	t.Helper()
	s := slices.Concat(rbdState(t, testLab.Conf), libvirtState(t))
	if farConf != "" {
		for _, line := range rbdState(t, farConf).named() {
			s = append(s, "far "+line)
		}
	}
	slices.Sort(s)
	return s
}

// farConf is the ceph.conf of a second cluster, if there is one.
var farConf string

// forGood are objects that are made when they are first needed and never removed.
var forGood = []string{"rbd_children", "rbd_directory", "rbd_info", "rbd_trash", "vmdisk.backups", "vmdisk.links"}

// records are where vmdisk keeps what is under way and which machines there are.
var records = []string{"vmdisk.journal", "vmdisk.machines"}

// rbdState lists the rados objects but those that hold data, and what is in those
// that describe images, machines and backups.
func rbdState(t testing.TB, conf string) state {
	t.Helper()
	var s state
	withCephAt(t, conf, func(conn *rados.Conn) {
		for _, pool := range []string{disk.ImagePool, disk.VMPool, disk.VolumePool, disk.BackupPool, otherPool} {
			io, err := conn.OpenIOContext(pool)
			if pool == otherPool && errors.Is(err, rados.ErrNotFound) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			var headers []string
			err = io.ListObjects(func(object string) {
				if id, ok := strings.CutPrefix(object, "rbd_header."); ok {
					headers = append(headers, id)
				}
				if !strings.HasPrefix(object, "rbd_data.") && !slices.Contains(forGood, object) && !slices.Contains(records, object) {
					s = append(s, "object "+pool+"/"+object)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, object := range append([]string{"rbd_directory", "rbd_children", "rbd_trash", "vmdisk.backups"}, records...) {
				omap, err := io.GetAllOmapValues(object, "", "", 1000)
				if err != nil && !errors.Is(err, rados.ErrNotFound) {
					t.Fatal(err)
				}
				for key, value := range omap {
					switch {
					case object == "rbd_children":
						s = append(s, children(pool, key, value)...)
						continue
					case object == "rbd_trash": // it has the time of deletion, too
						value = []byte(trashedName(value))
					case slices.Contains(records, object):
						value = nil // it has the time of the last change
					}
					s = append(s, fmt.Sprintf("omap %s/%s %q %q", pool, object, key, value))
				}
			}
			for _, id := range headers {
				omap, err := io.GetAllOmapValues("rbd_header."+id, "", "", 1000)
				if err != nil && !errors.Is(err, rados.ErrNotFound) {
					t.Fatal(err)
				}
				s = append(s, fmt.Sprintf("image %s/%s: %s", pool, id, describe(omap)))
			}
			io.Destroy()
		}
	})
	return s
}

// children are those of one parent, a line each, though they are one value.
func children(pool, parent string, value []byte) (all []string) {
	for _, child := range idsIn(value) {
		all = append(all, fmt.Sprintf("child %s/%s of %s", pool, child, idsIn([]byte(parent))[0]))
	}
	return all
}

// trashedName is the name that an image in the trash had: after a header of six bytes
// and one for who put it there. Source: cls_rbd, TrashImageSpec.
func trashedName(entry []byte) string {
	if len(entry) < 11 {
		return ""
	}
	return string(entry[11 : 11+binary.LittleEndian.Uint32(entry[7:])])
}

// describe says what an image's header has of its size, parent, snapshots and
// metadata. IDs of snapshots are others each time and are left out.
func describe(header map[string][]byte) string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(header)) {
		value := header[key]
		switch {
		case key == "size" || key == "features":
			all = append(all, fmt.Sprintf("%s %d", key, binary.LittleEndian.Uint64(value)))
		case key == "parent":
			all = append(all, "parent "+idsIn(value)[0])
		case strings.HasPrefix(key, "metadata_"):
			all = append(all, fmt.Sprintf("%s %q", key, value))
		case strings.HasPrefix(key, "snapshot_"):
			all = append(all, "snapshot "+describeSnapshot(value))
		}
	}
	return strings.Join(all, ", ")
}

// imageIDs is what RBD's IDs of images look like.
var imageIDs = regexp.MustCompile(`[0-9a-f]{10,}`)

// idsIn finds the IDs of images in what Ceph encoded. Each comes after its length, for
// what follows can look like more of it.
func idsIn(b []byte) (all []string) {
	for _, at := range imageIDs.FindAllIndex(b, -1) {
		all = append(all, string(b[at[0]:][:binary.LittleEndian.Uint32(b[at[0]-4:])]))
	}
	return all
}

// describeSnapshot reads the start of a cls_rbd_snap: after the version, the length
// and the ID come the name, the size and whether it is protected.
func describeSnapshot(b []byte) string {
	const start = 2 + 4 + 8
	name := b[start+4:][:binary.LittleEndian.Uint32(b[start:])]
	rest := b[start+4+len(name):]
	return fmt.Sprintf("%s %d %d", name, binary.LittleEndian.Uint64(rest), rest[8])
}

// withCeph runs f with the lab's Ceph.
func withCeph(t testing.TB, f func(*rados.Conn)) {
	t.Helper()
	withCephAt(t, testLab.Conf, f)
}

func withCephAt(t testing.TB, conf string, f func(*rados.Conn)) {
	t.Helper()
	conn, err := rados.NewConnWithUser("admin")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.ReadConfigFile(conf); err != nil {
		t.Fatal(err)
	}
	for _, option := range []string{"log_file", "admin_socket"} {
		if err := conn.SetConfigOption(option, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Connect(); err != nil {
		t.Fatal(err)
	}
	defer conn.Shutdown()
	f(conn)
}

func libvirtState(t testing.TB) state {
	t.Helper()
	var s state
	for _, host := range testLab.Hosts {
		conn, err := domain.Connect(t.Context(), host.URI, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, vm := range machinesOf(t, conn) {
			text, err := json.Marshal(vm)
			if err != nil {
				t.Fatal(err)
			}
			targets, err := domain.Targets(t.Context(), conn, vm.UUID)
			if err != nil {
				t.Fatal(err)
			}
			s = append(s, fmt.Sprintf("domain %s %s %v", host.Name, text, targets))
		}
		secrets, err := secret.List(conn)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range secrets {
			s = append(s, fmt.Sprintf("secret %s %s", host.Name, one.UUID))
		}
		if left, err := conn.Close(); err != nil || left != 0 {
			t.Fatalf("libvirt references left: %d, %v", left, err)
		}
	}
	return s
}

// machinesOf lists a host's machines when the preflight's probes are gone: libvirt ends
// them when who has made them has died, and takes its time.
func machinesOf(t testing.TB, conn *libvirt.Connect) []domain.Info {
	t.Helper()
	for ctx := waiting(t); ; {
		vms, err := domain.List(ctx, conn)
		must(t, err)
		if !slices.ContainsFunc(vms, func(vm domain.Info) bool { return strings.HasPrefix(vm.Name, "vmdisk-probe-") }) {
			return vms
		}
		must(t, sleep(ctx, 50*time.Millisecond))
	}
}

// unchanged compares with the state before.
func (s state) unchanged(t testing.TB) {
	t.Helper()
	if diff := cmp.Diff(s, stateNow(t)); diff != "" {
		t.Errorf("state changed (-before +after):\n%s", diff)
	}
}

// same compares with the state before, but for the IDs of images and snapshots.
func (s state) same(t testing.TB) {
	t.Helper()
	if diff := cmp.Diff(s.named(), stateNow(t).named()); diff != "" {
		t.Errorf("state changed (-before +after):\n%s", diff)
	}
}

// directoryLine is one of a pool's directory: names have ids, ids have names. In the
// trash only ids have names.
var (
	directoryLine = regexp.MustCompile(`^omap ([a-z]+)/rbd_directory "(name|id)_([^"]+)" "(.*)"$`)
	trashLine     = regexp.MustCompile(`^omap ([a-z]+)/rbd_trash "id_([^"]+)" "(.*)"$`)
)

// lengthOfID comes before an id in an omap's value, and is not always the same.
var lengthOfID = regexp.MustCompile(`\\(n|v|f|r|x[0-9a-f]{2})\\x00\\x00\\x00<`)

// snapshotMap is a snapshot's object map, which has the snapshot's ID.
var snapshotMap = regexp.MustCompile(`(rbd_object_map\.<.*>\.)[0-9a-f]{16}$`)

// times are in what is kept of backups: in the names of snapshots, and in notes.
var times = regexp.MustCompile(`\.snap\.[0-9]+\.[0-9]+|\\"created\\":\\"[^"]*"`)

// named has the names of images instead of their IDs, and no IDs of snapshots, which
// are others each time, as times are.
func (s state) named() state {
	names := map[string][]string{}
	for _, line := range s {
		if m := directoryLine.FindStringSubmatch(line); m != nil && m[2] == "name" {
			names[m[1]] = append(names[m[1]], m[3])
		}
	}
	var pairs []string
	for _, line := range s {
		if m := trashLine.FindStringSubmatch(line); m != nil {
			pairs = append(pairs, m[2], "<"+m[1]+" trash/"+m[3]+">")
		}
		m := directoryLine.FindStringSubmatch(line)
		if m == nil || m[2] != "id" {
			continue
		}
		for _, name := range names[m[1]] {
			if strings.HasSuffix(m[4], name) {
				pairs = append(pairs, m[3], "<"+m[1]+"/"+name+">")
			}
		}
	}
	to := strings.NewReplacer(pairs...)
	all := state{}
	for _, line := range s {
		line = lengthOfID.ReplaceAllString(to.Replace(line), "<")
		line = snapshotMap.ReplaceAllString(line, "$1")
		all = append(all, times.ReplaceAllString(line, "<time>"))
	}
	slices.Sort(all)
	return all
}
