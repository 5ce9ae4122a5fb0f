// The host's part of Init that machines need: the folders for their admin sockets
// and logs, over reboots too, and the libvirt secret.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/secret"
)

// folderMode lets QEMU in, and no others: a guest's log may tell of its images.
const folderMode = 0o770

// guestFolders are those of the admin socket and the log of guests.
func (i *initializing) guestFolders() []string {
	var folders []string
	for _, option := range []string{"admin_socket", "log_file"} {
		if path := i.conf[option]; filepath.IsAbs(path) {
			folders = append(folders, filepath.Dir(path))
		}
	}
	return folders
}

func (i *initializing) inspectFolders(ctx context.Context) (err error) {
	if i.qemu.uid < 0 {
		if i.qemu.uid, i.qemu.gid, err = domain.QEMUOwner(ctx, i.conn); err != nil {
			return err
		}
	}
	for _, dir := range i.guestFolders() {
		t := &chore{InitItem: InitItem{Kind: "folder", Name: dir, State: Found, Detail: i.qemu.String()}}
		info, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			t.State = Missing
			t.steps = []step{{do: func(context.Context) error { return makeFolder(dir, i.qemu) }}}
		case err != nil:
			return err
		case !info.IsDir():
			t.State, t.Detail = Differs, "is no folder"
		case !ownerOf(info).is(i.qemu):
			t.State, t.becomes = Differs, Changed
			t.Detail = fmt.Sprintf("belongs to %s, QEMU runs as %s", ownerOf(info), i.qemu)
			t.steps = []step{{do: func(context.Context) error { return os.Chown(dir, i.qemu.uid, i.qemu.gid) }}}
		}
		i.add(t)
		i.inspectWay(dir)
	}
	return nil
}

// makeFolder makes a folder that its owner's group may use, too.
func makeFolder(dir string, o owner) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, folderMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return errors.Join(os.Chown(dir, o.uid, o.gid), os.Chmod(dir, folderMode))
}

// inspectWay finds folders above one that QEMU may not pass through, as Debian's
// /run/ceph is, and lets it pass, but not look.
func (i *initializing) inspectWay(dir string) {
	for _, d := range i.closed(dir) {
		i.add(&chore{
			InitItem: InitItem{Kind: "folder", Name: d, State: Missing, Detail: i.qemu.String() + " cannot pass through it"},
			becomes:  Changed,
			steps: []step{{do: func(context.Context) error {
				info, err := os.Stat(d)
				if err != nil {
					return err
				}
				return os.Chmod(d, info.Mode().Perm()|0o001)
			}}},
		})
	}
}

// closed are the folders above one that the user of QEMU may not pass through.
func (i *initializing) closed(dir string) []string {
	var all []string
	if i.qemu.uid == 0 {
		return nil
	}
	for d := filepath.Dir(realPath(dir)); d != "/"; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			continue // it is made with the mode 0755
		}
		bit, o := fs.FileMode(0o001), ownerOf(info)
		switch {
		case o.uid == i.qemu.uid:
			bit = 0o100
		case o.gid == i.qemu.gid:
			bit = 0o010
		}
		if info.Mode()&bit == 0 && !i.planned("folder", d) {
			all = append(all, d)
		}
	}
	return all
}

func (i *initializing) planned(kind, name string) bool {
	for _, t := range i.chores {
		if t.Kind == kind && t.Name == name {
			return true
		}
	}
	return false
}

// realPath is a path with the symbolic links in the part of it that exists
// resolved: /var/run is /run.
func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil || path == "/" {
		return real
	}
	return filepath.Join(realPath(filepath.Dir(path)), filepath.Base(path))
}

// inspectTmpfiles has systemd make the folders at each start: /run is empty then.
func (i *initializing) inspectTmpfiles(context.Context) error {
	path := filepath.Join(i.o.TmpfilesDir, "vmdisk.conf")
	text := i.tmpfiles()
	t := &chore{InitItem: InitItem{Kind: "tmpfiles", Name: path, State: Found}}
	t.steps = []step{{do: func(context.Context) error {
		if err := os.MkdirAll(i.o.TmpfilesDir, 0o755); err != nil {
			return err
		}
		return replaceFile(path, text, 0o644, owner{-1, -1}, nil)
	}}}
	has, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		t.State = Missing
	case err != nil:
		return err
	case string(has) != text:
		t.State, t.becomes = Differs, Changed
		t.Detail = "should say " + strings.Join(otherLines(text, string(has)), "; ")
	}
	i.add(t)
	return nil
}

// tmpfiles is the text for systemd-tmpfiles. Source: tmpfiles.d(5).
func (i *initializing) tmpfiles() string {
	var b strings.Builder
	b.WriteString("# Admin sockets and logs of QEMU's RBD disks. Written by vmdisk cluster init.\n")
	done := map[string]bool{}
	for _, dir := range i.guestFolders() {
		real := realPath(dir)
		if done[real] {
			continue
		}
		done[real] = true
		fmt.Fprintf(&b, "d %s %04o %s -\n", real, folderMode, strings.Replace(i.qemu.String(), ":", " ", 1))
		// ceph.conf there closes /run/ceph to all but ceph; this opens a way through.
		if filepath.Dir(real) == "/run/ceph" && i.qemu.uid != 0 {
			b.WriteString("z /run/ceph 0771 - - -\n")
		}
	}
	return b.String()
}

// otherLines are the lines of a that b does not have, but for comments.
func otherLines(a, b string) []string {
	var all []string
	for line := range strings.Lines(a) {
		if !strings.Contains(b, line) && !strings.HasPrefix(line, "#") {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}

func (i *initializing) inspectSecret(context.Context) error {
	id := i.h.cfg.SecretUUID
	if id == "" {
		id = secret.UUID(i.cluster.FSID(), guestUser)
	}
	t := &chore{InitItem: InitItem{Kind: "secret", Name: secret.Usage(guestUser), State: Missing, Detail: id}}
	t.steps = []step{{do: func(ctx context.Context) error {
		key, err := i.guestKey(ctx)
		if err != nil {
			return err
		}
		_, _, err = secret.Ensure(ctx, i.conn, id, guestUser, key, i.h.secretBeside(i.cluster))
		return err
	}}}
	all, err := secret.List(i.conn)
	if err != nil {
		return err
	}
	for _, s := range all {
		switch {
		case s.UUID == id: // its value is set again whenever a machine needs it
			t.State, t.steps, t.Detail = Found, nil, id
		case s.Usage != t.Name || i.h.cfg.SecretUUID != "" || t.State == Found:
		default:
			t.State, t.steps = Differs, nil
			t.Detail = "is " + s.UUID + " on this host, not " + id + "; if it is this cluster's, say so:  --secret-uuid " + s.UUID
		}
	}
	i.add(t)
	return nil
}

// guestKey is the key of guests' user, from the cluster or, for a caller who may not
// read it there, from the host.
func (i *initializing) guestKey(ctx context.Context) (secret.Key, error) {
	u, err := secret.ReadUser(ctx, i.cluster.Ask, guestUser)
	if errors.Is(err, disk.ErrPermission) {
		return secret.ReadKey([]string{filepath.Join(i.o.KeyringDir, secret.KeyringName(guestUser))}, guestUser)
	}
	return u.Key, err
}
