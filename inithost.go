// The host's part of Init: keyrings and ceph.conf.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/secret"
)

// guestUser is the cephx user of guests.
const guestUser = "cinder"

// owner is who owns a file; -1 is whoever makes it.
type owner struct{ uid, gid int }

// parseOwner reads USER[:GROUP], in names or numbers. Without a group it is the
// user's own.
func parseOwner(text string) (owner, error) {
	if text == "" {
		return owner{-1, -1}, nil
	}
	name, group, hasGroup := strings.Cut(text, ":")
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	if err != nil {
		if _, notNumber := strconv.Atoi(name); notNumber != nil || !hasGroup {
			return owner{}, badInput("owner %q: no user %q on this host", text, name)
		}
		u = &user.User{Uid: name}
	}
	gid := u.Gid
	if hasGroup {
		if g, err := user.LookupGroup(group); err == nil {
			gid = g.Gid
		} else {
			gid = group
		}
	}
	var o owner
	if o.uid, err = strconv.Atoi(u.Uid); err == nil {
		o.gid, err = strconv.Atoi(gid)
	}
	if err != nil || o.uid < 0 || o.gid < 0 {
		return owner{}, badInput("owner %q: no group %q on this host", text, group)
	}
	return o, nil
}

// ownerOf is who owns a file that is there.
func ownerOf(info fs.FileInfo) owner {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return owner{-1, -1}
	}
	return owner{int(st.Uid), int(st.Gid)}
}

// is says whether a file's owner is the one that is wanted.
func (o owner) is(wanted owner) bool {
	return (wanted.uid < 0 || o.uid == wanted.uid) && (wanted.gid < 0 || o.gid == wanted.gid)
}

// String is USER:GROUP, by name where there is one.
func (o owner) String() string {
	uid, gid := strconv.Itoa(o.uid), strconv.Itoa(o.gid)
	if u, err := user.LookupId(uid); err == nil {
		uid = u.Username
	}
	if g, err := user.LookupGroupId(gid); err == nil {
		gid = g.Name
	}
	return uid + ":" + gid
}

func (i *initializing) inspectKeyrings(context.Context) error {
	for _, u := range secret.Services() {
		if len(i.o.Users) > 0 && !slices.Contains(i.o.Users, u.Name) {
			continue
		}
		t := &chore{InitItem: InitItem{Kind: "keyring", Name: filepath.Join(i.o.KeyringDir, secret.KeyringName(u.Name))}}
		t.steps = []step{{do: func(ctx context.Context) error { return i.writeKeyring(ctx, t.Name, u.Name) }}}
		if err := i.judgeKeyring(t, u.Name); err != nil {
			return err
		}
		i.add(t)
	}
	return nil
}

// judgeKeyring says what a keyring is like. What is wrong with its key is not told.
func (i *initializing) judgeKeyring(t *chore, name string) error {
	info, err := os.Stat(t.Name)
	if errors.Is(err, fs.ErrNotExist) {
		t.State = Missing
		if i.users == nil {
			return &disk.Error{Op: "read the key of", Object: "client." + name, Kind: disk.ErrPermission,
				Reason: "client." + i.cluster.User() + " lacks the cap for it; copy the keyring to " + t.Name + " or run as client.admin:  --id admin"}
		}
		if _, ok := i.users[name]; !ok && i.o.HostOnly && !i.o.DryRun {
			return &disk.Error{Op: "find", Object: "client." + name, Kind: disk.ErrNotFound,
				Reason: "no such user in the cluster; vmdisk cluster init --id admin --cluster-only makes it"}
		}
		return nil
	}
	if err != nil {
		return err
	}
	others, err := secret.OtherUsers(t.Name, name)
	if err != nil {
		return err
	}
	has, err := secret.ReadKey([]string{t.Name}, name)
	wants, known := i.users[name]
	mode := info.Mode().Perm()
	t.State, t.becomes = Differs, Changed
	mend := []step{{do: func(context.Context) error {
		return errors.Join(os.Chmod(t.Name, 0o600), os.Chown(t.Name, i.owner.uid, i.owner.gid))
	}}}
	switch {
	case len(others) > 0 && (err != nil || known && !has.Equal(wants.Key)):
		t.Detail, t.steps = "has no right key of client."+name+", but those of "+strings.Join(others, ", "), nil
	case err != nil:
		t.Detail = "has no key of client." + name
	case i.users != nil && !known:
		t.Detail = "has a key, and the cluster no client." + name
	case known && !has.Equal(wants.Key):
		t.Detail = "has another key than the cluster"
	case mode&0o007 != 0:
		t.Detail, t.steps = fmt.Sprintf("anybody can read it (mode %04o)", mode), mend
	case !ownerOf(info).is(i.owner):
		t.Detail, t.steps = fmt.Sprintf("belongs to %s, should to %s", ownerOf(info), i.owner), mend
	default:
		t.State = Found
		t.Detail = fmt.Sprintf("%s, mode %04o", ownerOf(info), mode)
		if i.users == nil {
			t.Detail += ", not compared with the cluster's"
		}
	}
	return nil
}

func (i *initializing) writeKeyring(ctx context.Context, path, name string) error {
	u, err := secret.ReadUser(ctx, i.cluster.Ask, name)
	if err != nil {
		return err
	}
	return secret.WriteKeyring(path, u, i.owner.uid, i.owner.gid)
}

// inspectConf compares the [client] section with what guests need, and what
// librados makes of the whole file with that.
func (i *initializing) inspectConf(context.Context) error {
	path := i.cluster.Conf()
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	complete := func(force bool) []step {
		return []step{{do: func(context.Context) error {
			return replaceConf(path, func(text string) string {
				out, _, _ := completeConf(text, clientOptions(), force)
				return out
			})
		}}}
	}
	out, added, differing := completeConf(string(text), clientOptions(), true)
	if len(added) == 0 && len(differing) == 0 {
		i.add(&chore{InitItem: InitItem{Kind: "conf", Name: path, State: Found, Detail: "[client]"}})
	}
	if len(added) > 0 {
		i.add(&chore{InitItem: InitItem{Kind: "conf", Name: path, State: Missing,
			Detail: "[client] " + strings.Join(added, ", ")}, steps: complete(false), becomes: Changed})
	}
	for _, d := range differing {
		i.add(&chore{InitItem: InitItem{Kind: "conf", Name: path, State: Differs,
			Detail: fmt.Sprintf("[client] %s is %s, should be %s", d.name, d.has, d.wants)}, steps: complete(true), becomes: Changed})
	}
	return i.inspectOverrides(path, out)
}

// inspectOverrides finds what a section that is closer to guests has otherwise than
// [client], and what the sockets and logs of guests will be called.
func (i *initializing) inspectOverrides(path, text string) (err error) {
	if i.conf, err = readConfText(text); err != nil {
		return err
	}
	for _, o := range clientOptions() {
		if value := i.conf[confKey(o.name)]; !o.local && !sameValue(value, o.value) {
			i.add(&chore{InitItem: InitItem{Kind: "conf", Name: path, State: Differs,
				Detail: fmt.Sprintf("[client.%s] %s is %s, should be %s or left to [client]", guestUser, o.name, value, o.value)}})
		}
	}
	return nil
}

// readConfText reads what a guest is told by a ceph.conf that is no file yet.
func readConfText(text string) (map[string]string, error) {
	f, err := os.CreateTemp("", "vmdisk-ceph.conf.*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	var keys []string
	for _, o := range clientOptions() {
		keys = append(keys, confKey(o.name))
	}
	return disk.ReadConf(f.Name(), guestUser, keys...)
}

// replaceConf edits a ceph.conf, in its place and with its mode and owner, and only
// if librados can read what came out.
func replaceConf(path string, edit func(string) string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	was, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := edit(string(was))
	return replaceFile(path, text, info.Mode().Perm(), ownerOf(info), func(temp string) error {
		_, err := disk.ReadConf(temp, guestUser)
		return err
	})
}

// replaceFile writes a file whole or not at all, once check, if it is not nil, has
// seen it.
func replaceFile(path, text string, mode fs.FileMode, o owner, check func(temp string) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // which is in vain once it has its name
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Chown(o.uid, o.gid), f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if check != nil {
		if err := check(f.Name()); err != nil {
			return err
		}
	}
	err = os.Rename(f.Name(), path)
	if errors.Is(err, syscall.EBUSY) { // a mount point, as in a container
		return os.WriteFile(path, []byte(text), mode)
	}
	return err
}
