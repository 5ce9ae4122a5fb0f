// The cephx users of OpenStack's services: what they may do, and their keys in the
// cluster.

package secret

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// User is a cephx user of a cluster.
type User struct {
	Name string            // without "client."
	Caps map[string]string // by the kind of daemon: "mon", "osd", "mgr"
	Key  Key
}

// Services are the users of Glance, Cinder and cinder-backup with the caps that
// they need, and no keys.
func Services() []User {
	user := func(name, osd string) User {
		return User{Name: name, Caps: map[string]string{"mon": "profile rbd", "osd": osd}}
	}
	return []User{
		user("glance", "profile rbd pool=images"),
		user("cinder", "profile rbd pool=volumes, profile rbd pool=vms, profile rbd pool=images"),
		user("cinder-backup", "profile rbd pool=backups"),
	}
}

// ReadsBackups are the caps that client.cinder needs besides to read the pool of backups: a
// volume that is a clone of one reads there what it has not of its own.
func ReadsBackups(pool string) map[string]string {
	return map[string]string{"osd": "profile rbd-read-only pool=" + pool}
}

// Ask sends a command to a cluster's monitors; disk.Cluster.Ask does.
type Ask func(ctx context.Context, command map[string]any) ([]byte, error)

// ReadUser reads a user and its key. The error for one that does not exist, or may
// not be read, is ask's.
//
// Similar to: ceph auth get.
func ReadUser(ctx context.Context, ask Ask, name string) (User, error) {
	out, err := ask(ctx, map[string]any{"prefix": "auth get", "entity": "client." + name})
	if err != nil {
		return User{}, err
	}
	return parseUser(out, name)
}

// CreateUser makes a user with caps, if there is none, and leaves one with the same
// caps as it is.
//
// Similar to: ceph auth get-or-create.
func CreateUser(ctx context.Context, ask Ask, u User) error {
	_, err := ask(ctx, map[string]any{"prefix": "auth get-or-create", "entity": "client." + u.Name, "caps": capsList(u.Caps)})
	return err
}

// SetCaps replaces all caps of a user. Its key stays.
//
// Similar to: ceph auth caps.
func SetCaps(ctx context.Context, ask Ask, u User) error {
	_, err := ask(ctx, map[string]any{"prefix": "auth caps", "entity": "client." + u.Name, "caps": capsList(u.Caps)})
	return err
}

func capsList(caps map[string]string) []string {
	var list []string
	for _, daemon := range slices.Sorted(maps.Keys(caps)) {
		list = append(list, daemon, caps[daemon])
	}
	return list
}

func parseUser(answer []byte, name string) (User, error) {
	var users []struct {
		Entity string            `json:"entity"`
		Key    string            `json:"key"`
		Caps   map[string]string `json:"caps"`
	}
	// The answer has the key in it: no error may quote it.
	if err := json.Unmarshal(answer, &users); err != nil {
		return User{}, errors.New("the answer to ceph auth get is not the JSON that was expected")
	}
	for _, u := range users {
		if u.Entity == "client."+name {
			key, err := ParseKey(u.Key)
			return User{Name: name, Caps: u.Caps, Key: key}, err
		}
	}
	return User{}, fmt.Errorf("the answer to ceph auth get does not have client.%s", name)
}

// CapsText is how people write a user's caps: mon 'profile rbd' osd '…'.
func CapsText(caps map[string]string) string {
	var parts []string
	for _, daemon := range slices.Sorted(maps.Keys(caps)) {
		parts = append(parts, fmt.Sprintf("%s '%s'", daemon, caps[daemon]))
	}
	return strings.Join(parts, " ")
}

// Lacking are the caps that a user wants and has not, by the kind of daemon; what it may
// do besides does not matter. Order and spaces do not either, nor whether "allow" is
// written.
func Lacking(has, wants map[string]string) map[string]string {
	lacks := map[string]string{}
	for daemon, caps := range wants {
		own := grants(has[daemon])
		missing := slices.DeleteFunc(grants(caps), func(g string) bool { return slices.Contains(own, g) })
		if len(missing) > 0 {
			lacks[daemon] = strings.Join(missing, ", ")
		}
	}
	return lacks
}

// Grant is a user with more caps than it has.
func (u User) Grant(more map[string]string) User {
	caps := maps.Clone(u.Caps)
	if caps == nil {
		caps = map[string]string{}
	}
	for daemon, add := range more {
		if caps[daemon] != "" {
			add = caps[daemon] + ", " + add
		}
		caps[daemon] = add
	}
	u.Caps = caps
	return u
}

func grants(caps string) []string {
	var all []string
	for _, g := range strings.FieldsFunc(caps, func(r rune) bool { return r == ',' || r == ';' }) {
		g = strings.Join(strings.Fields(g), " ")
		if g = strings.Replace(g, "allow profile ", "profile ", 1); g != "" {
			all = append(all, g)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
