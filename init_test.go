package vmdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/lab"
	"github.com/vmdisk/vmdisk/secret"
	"golang.org/x/sync/errgroup"
)

// TestInit begins with an empty cluster and ends with a guest on it that has a
// volume: with no other means than init, import, boot, volume and attach.
func TestInit(t *testing.T) {
	n := newBare(t)
	n.refusesForeignPools(t)
	n.dryRunChangesNothing(t)
	if _, err := n.open(t).Init(t.Context(), n.hostOnly()); !errors.Is(err, disk.ErrNotFound) || !strings.Contains(err.Error(), "cluster-only") {
		t.Errorf("a host before its cluster: %v", err)
	}
	n.goesOnAfterEachStep(t)
	n.findsAll(t)
	n.leavesWhatDiffers(t)
	n.twoAtOnce(t)
	n.callerWithoutCaps(t)
	n.works(t)
	for _, user := range []string{"admin", "glance", "cinder", "cinder-backup"} {
		text, err := os.ReadFile(n.lab.Keyring(user))
		must(t, err)
		_, key, _ := strings.Cut(string(text), "key = ")
		if bytes.Contains(n.said.Bytes(), []byte(strings.TrimSpace(key))) {
			t.Errorf("the key of client.%s was said", user)
		}
	}
}

// bare is an empty lab, and a host's folders in a temporary one.
type bare struct {
	lab  *lab.Lab
	conf string // a copy of the lab's, whose sockets and logs are elsewhere
	dir  string
	o    InitOptions
	said bytes.Buffer
}

func newBare(t *testing.T) *bare {
	t.Helper()
	l, err := lab.Up(t.Context(), lab.Options{Dir: fmt.Sprintf("/var/tmp/bare-%d", os.Getpid()), Store: lab.MemStore, Bare: true})
	must(t, err)
	t.Cleanup(func() { must(t, l.Down(context.WithoutCancel(t.Context()))) })
	n := &bare{lab: l, dir: t.TempDir()}
	must(t, os.Chmod(filepath.Dir(n.dir), 0o755)) // QEMU must pass through
	n.conf = filepath.Join(n.dir, "ceph.conf")
	text, err := os.ReadFile(l.Conf)
	must(t, err)
	must(t, os.Mkdir(filepath.Join(n.dir, "closed"), 0o700))
	section := strings.Index(string(text), "[client]")
	must(t, os.WriteFile(n.conf, []byte(string(text)[:section]+
		"[client]\n# guests\nadmin socket = "+n.dir+"/closed/guests/$cluster-$type.$id.$pid.$cctid.asok\nlog file = "+n.dir+"/log/qemu-$pid.log\n"), 0o640))
	n.o = InitOptions{PGs: 8, KeyringDir: filepath.Dir(l.Conf), KeyringOwner: "nobody", QEMUOwner: "nobody:nogroup", TmpfilesDir: filepath.Join(n.dir, "tmpfiles.d")}
	return n
}

func (n *bare) hostOnly() InitOptions {
	o := n.o
	o.HostOnly = true
	return o
}

func (n *bare) open(t *testing.T) *Host { return n.openAs(t, "admin") }

func (n *bare) openAs(t *testing.T, user string) *Host {
	t.Helper()
	h, err := Open(t.Context(), Config{Ceph: disk.Config{Conf: n.conf, User: user}, URI: n.lab.Hosts[0].URI, Observe: func(e Event) {
		watchLeaks(e)
		if e.Kind != Progress {
			fmt.Fprintln(&n.said, e.Object, e.Step, e.Detail, e.Err)
		}
	}})
	must(t, err)
	t.Cleanup(func() { must(t, h.Close()) })
	return h
}

// ask runs a command of ceph.
func (n *bare) ask(t *testing.T, command map[string]any) {
	t.Helper()
	c, err := n.open(t).Cluster(t.Context())
	must(t, err)
	_, err = c.Ask(t.Context(), command)
	must(t, err)
}

// init runs Init and notes what it says.
func (n *bare) init(t *testing.T, h *Host, o InitOptions) ([]InitItem, error) {
	t.Helper()
	items, err := h.Init(t.Context(), o)
	fmt.Fprintln(&n.said, items, err)
	return items, err
}

// state is what is in the cluster and on the host, with the times of files.
func (n *bare) state(t *testing.T) []string {
	t.Helper()
	var s []string
	h := n.open(t)
	c, err := h.Cluster(t.Context())
	must(t, err)
	for _, name := range disk.Pools() {
		p, err := c.Pool(t.Context(), name)
		s = append(s, fmt.Sprintf("pool %+v %v", p, errors.Is(err, disk.ErrNotFound)))
	}
	for _, u := range secret.Services() {
		has, err := secret.ReadUser(t.Context(), c.Ask, u.Name)
		s = append(s, fmt.Sprintf("user %s %s %v", u.Name, secret.CapsText(has.Caps), errors.Is(err, disk.ErrNotFound)))
	}
	for _, dir := range []string{n.dir, filepath.Dir(n.lab.Conf)} {
		must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
			if err != nil || strings.Contains(path, "/ceph/") && !strings.HasSuffix(path, ".keyring") {
				return nil
			}
			line := fmt.Sprintf("file %s %s %s", path, info.Mode(), ownerOf(info))
			if !info.IsDir() {
				line += " " + info.ModTime().String()
			}
			s = append(s, line)
			return nil
		}))
	}
	secrets, err := h.Secrets(t.Context())
	must(t, err)
	return append(s, fmt.Sprint(secrets))
}

// states says in which states things are, but for those that were found.
func states(items []InitItem) (s []string) {
	for _, i := range items {
		if i.State != Found {
			s = append(s, fmt.Sprintf("%s %s %s", i.State, i.Kind, filepath.Base(i.Name)))
		}
	}
	return s
}

// Pools of others are told and left, even by force.
func (n *bare) refusesForeignPools(t *testing.T) {
	n.ask(t, map[string]any{"prefix": "osd pool create", "pool": "backups", "pg_num": 1, "pool_type": "erasure"})
	n.ask(t, map[string]any{"prefix": "osd pool create", "pool": "vms", "pg_num": 1})
	n.ask(t, map[string]any{"prefix": "osd pool application enable", "pool": "vms", "app": "cephfs"})
	items, err := n.init(t, n.open(t), InitOptions{ClusterOnly: true, DryRun: true, Force: true})
	if !errors.Is(err, disk.ErrExists) || !strings.Contains(err.Error(), "erasure-coded") || !strings.Contains(err.Error(), "application cephfs") {
		t.Errorf("error is %v", err)
	}
	if got := states(items); !slices.Contains(got, "differs pool backups") || !slices.Contains(got, "differs pool vms") {
		t.Errorf("items are %q", got)
	}
	for _, pool := range []string{"backups", "vms"} {
		n.ask(t, map[string]any{"prefix": "osd pool delete", "pool": pool, "pool2": pool, "yes_i_really_really_mean_it": true})
	}
}

func (n *bare) dryRunChangesNothing(t *testing.T) {
	was := n.state(t)
	o := n.o
	o.DryRun = true
	items, err := n.init(t, n.open(t), o)
	must(t, err)
	for _, i := range items {
		if i.State != Missing {
			t.Errorf("%+v in an empty cluster", i)
		}
	}
	if diff := cmp.Diff(was, n.state(t)); diff != "" {
		t.Errorf("a dry run changed (-before +after):\n%s", diff)
	}
}

// goesOnAfterEachStep fails init before and after its first step again and again, so
// that each step is the first once.
func (n *bare) goesOnAfterEachStep(t *testing.T) {
	h := n.open(t)
	var did []string
	for {
		step := ""
		for _, when := range []phase{before, after} {
			h.fault = func(_, s string, w phase) error {
				if w != when {
					return nil
				}
				step = s
				return errTest
			}
			_, err := n.init(t, h, n.o)
			h.fault = nil
			if step == "" {
				must(t, err)
				if want := "pool pool pool pool pool pool pool pool user user user keyring keyring keyring conf folder folder folder tmpfiles secret"; strings.Join(did, " ") != want {
					t.Errorf("steps were %s", did)
				}
				return
			}
			if !errors.Is(err, errTest) {
				t.Fatal(err)
			}
		}
		did = append(did, step)
	}
}

// findsAll: run again, init changes nothing, not even the time of a file.
func (n *bare) findsAll(t *testing.T) {
	was := n.state(t)
	items, err := n.init(t, n.open(t), n.o)
	must(t, err)
	if got := states(items); len(got) > 0 {
		t.Errorf("not found: %q", got)
	}
	if diff := cmp.Diff(was, n.state(t)); diff != "" {
		t.Errorf("the second run changed (-before +after):\n%s", diff)
	}
	for _, u := range secret.Services() {
		info, err := os.Stat(n.lab.Keyring(u.Name))
		must(t, err)
		if info.Mode() != 0o600 || !strings.HasPrefix(ownerOf(info).String(), "nobody:") {
			t.Errorf("keyring of %s is %v of %v", u.Name, info.Mode(), ownerOf(info))
		}
	}
	text, err := os.ReadFile(filepath.Join(n.o.TmpfilesDir, "vmdisk.conf"))
	must(t, err)
	if want := "d " + n.dir + "/closed/guests 0770 nobody nogroup -\n"; !strings.Contains(string(text), want) {
		t.Errorf("tmpfiles are %s", text)
	}
	for path, mode := range map[string]os.FileMode{n.conf: 0o640, n.dir + "/closed": 0o701 | os.ModeDir, n.dir + "/closed/guests": 0o770 | os.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}

// leavesWhatDiffers: what is otherwise is told and left alone; what is missing is
// made all the same; force sets right all of it.
func (n *bare) leavesWhatDiffers(t *testing.T) {
	n.ask(t, map[string]any{"prefix": "auth caps", "entity": "client.cinder", "caps": []string{"mon", "profile rbd", "osd", "profile rbd pool=volumes", "mgr", "profile rbd"}})
	must(t, os.Chmod(n.lab.Keyring("glance"), 0o644))
	must(t, os.WriteFile(n.lab.Keyring("cinder-backup"), []byte("[client.cinder-backup]\n\tkey = AQBSdFhcVVhMDBAAkFhWhEfBEbyxzEIdWlSNpQ==\n"), 0o600))
	must(t, os.Remove(n.lab.Keyring("cinder")))
	text, err := os.ReadFile(n.conf)
	must(t, err)
	must(t, os.WriteFile(n.conf, bytes.Replace(text, []byte("rbd cache policy = writeback"), []byte("rbd_cache_policy = writearound"), 1), 0o640))
	must(t, os.Chown(n.dir+"/log", 0, 0))

	differ := []string{"user client.cinder", "keyring ceph.client.glance.keyring", "keyring ceph.client.cinder-backup.keyring", "conf ceph.conf", "folder log"}
	want := func(state InitState) (all []string) {
		for _, d := range differ {
			all = append(all, string(state)+" "+d)
		}
		return all
	}
	items, err := n.init(t, n.open(t), n.o)
	if !errors.Is(err, disk.ErrExists) {
		t.Errorf("error is %v", err)
	}
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Next, "--force") {
		t.Errorf("next is %+v", e)
	}
	for _, part := range []string{"client.cinder: lacks osd 'profile rbd pool=images, profile rbd pool=vms'", "mode 0644", "another key", "writearound", "root:root"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %v", part, err)
		}
	}
	got := slices.DeleteFunc(states(items), func(s string) bool { return s == "made keyring ceph.client.cinder.keyring" })
	if diff := cmp.Diff(want(Differs), got); diff != "" || len(got) == len(states(items)) {
		t.Errorf("(-want +got):\n%s", diff)
	}
	was := n.state(t)
	if _, err := n.init(t, n.open(t), n.o); !errors.Is(err, disk.ErrExists) {
		t.Errorf("error is %v", err)
	}
	if diff := cmp.Diff(was, n.state(t)); diff != "" {
		t.Errorf("changed without force (-before +after):\n%s", diff)
	}

	o := n.o
	o.Force = true
	items, err = n.init(t, n.open(t), o)
	must(t, err)
	if diff := cmp.Diff(want(Changed), states(items)); diff != "" {
		t.Errorf("with force (-want +got):\n%s", diff)
	}
	c, err := n.open(t).Cluster(t.Context())
	must(t, err)
	if u, err := secret.ReadUser(t.Context(), c.Ask, "cinder"); err != nil || u.Caps["mgr"] != "profile rbd" {
		t.Errorf("caps that are none of init's: %v, %v", u.Caps, err)
	}
	n.findsAll(t)
}

// twoAtOnce: both succeed, and it is made once.
func (n *bare) twoAtOnce(t *testing.T) {
	n.ask(t, map[string]any{"prefix": "osd pool delete", "pool": "backups", "pool2": "backups", "yes_i_really_really_mean_it": true})
	n.ask(t, map[string]any{"prefix": "auth rm", "entity": "client.cinder-backup"})
	must(t, os.Remove(n.lab.Keyring("cinder-backup")))
	must(t, os.RemoveAll(n.o.TmpfilesDir))
	text, err := os.ReadFile(n.lab.Conf)
	must(t, err)
	must(t, os.WriteFile(n.conf, append(text, "admin socket = "+n.dir+"/closed/guests/x\nlog file = "+n.dir+"/log/y\n"...), 0o640))
	hosts := []*Host{n.open(t), n.open(t)}
	for _, h := range hosts {
		h.cfg.Observe = nil
	}
	var g errgroup.Group
	for _, h := range hosts {
		g.Go(func() error { _, err := h.Init(t.Context(), n.o); return err })
	}
	must(t, g.Wait())
	n.findsAll(t)
}

// callerWithoutCaps is told what it may not do; on a host whose keyrings are there
// it may do all.
func (n *bare) callerWithoutCaps(t *testing.T) {
	h := n.openAs(t, "cinder")
	if _, err := n.init(t, h, n.o); !errors.Is(err, disk.ErrPermission) || !strings.Contains(err.Error(), "client.cinder lacks the mon cap") {
		t.Errorf("error is %v", err)
	}
	items, err := n.init(t, h, n.hostOnly())
	must(t, err)
	if len(states(items)) > 0 {
		t.Errorf("items are %v", items)
	}
	glance := n.openAs(t, "glance")
	_, err = glance.Boot(t.Context(), "x", BootOptions{Image: "guest"})
	if !errors.Is(err, disk.ErrPermission) || !strings.Contains(err.Error(), "client.glance needs the cap osd 'profile rbd pool=vms'") {
		t.Errorf("error is %v", err)
	}
	if _, err := glance.Volumes(t.Context()); !errors.Is(err, disk.ErrPermission) || !strings.Contains(err.Error(), "pool=volumes") {
		t.Errorf("error is %v", err)
	}
	must(t, secretRemoved(t, n.lab.Hosts[0].URI, "glance"))
}

// works: an image from Glance boots, and the guest writes on a volume.
func (n *bare) works(t *testing.T) {
	glance := startGlance(t, n.conf)
	var added struct{ URL string }
	glance.call(t, &added, "add", "debian 12", n.lab.Guest, true)
	h := n.openAs(t, "")
	text, err := os.ReadFile(n.lab.Conf)
	must(t, err)
	out, _, _ := completeConf(string(text), clientOptions(), false)
	for _, conf := range []string{n.lab.Conf, n.lab.Hosts[0].Conf} {
		must(t, os.WriteFile(conf, []byte(out), 0o644))
	}
	h.cfg.Ceph.Conf = n.lab.Conf
	h.cfg.VirtType = "qemu"
	vm, err := h.Boot(t.Context(), "first", BootOptions{Image: "debian 12", Memory: guestMemory})
	must(t, err)
	v, err := h.CreateVolume(t.Context(), "", disk.GiB)
	must(t, err)
	console := n.lab.Console(n.lab.Hosts[0], vm.Name)
	_, err = console.WaitAcked(waiting(t), "vda", 0)
	must(t, err)
	_, err = h.Attach(t.Context(), vm.Name, v.ID, AttachOptions{})
	must(t, err)
	_, err = console.WaitAcked(waiting(t), "vdb", 0)
	must(t, err)
	all, err := h.Capacity(t.Context(), "vms", "volumes")
	if err != nil || len(all.Pools) != 2 || all.Pools[1].Pool != "volumes" || all.Pools[0].Available <= 0 || all.Pools[0].Total != all.Total {
		t.Errorf("capacity is %+v, %v", all, err)
	}
	_, err = h.Remove(t.Context(), vm.Name)
	must(t, err)
	glance.call(t, nil, "delete", added.URL)
	if _, err := h.Image(t.Context(), "debian 12"); !errors.Is(err, disk.ErrNotFound) {
		t.Errorf("error is %v", err)
	}
}

func TestParseOwner(t *testing.T) {
	for _, bad := range []string{"no-such-user", "root:no-such-group", ":", "root:", "-1:-1"} {
		if o, err := parseOwner(bad); !errors.Is(err, disk.ErrInvalid) {
			t.Errorf("%q is %v, %v", bad, o, err)
		}
	}
	for good, want := range map[string]owner{"": {-1, -1}, "root": {0, 0}, "root:root": {0, 0}, "0:0": {0, 0}, "54321:12345": {54321, 12345}} {
		if o, err := parseOwner(good); o != want || err != nil {
			t.Errorf("%q is %v, %v", good, o, err)
		}
	}
}
