// The libvirt secret that holds a cephx key on one host.

package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// Secret is a libvirt secret for a cephx user.
type Secret struct {
	UUID  string `json:"uuid"`
	User  string `json:"user"`  // cephx user without "client."
	Usage string `json:"usage"` // "client.USER secret"
}

// Usage is what libvirt knows the secret of a cephx user by. Source: the Ceph
// documentation for OpenStack, which names it so.
func Usage(user string) string { return "client." + user + " secret" }

// UsageBeside is what libvirt knows a user's secret by on a host that has that of another
// cluster's user of the same name, too: libvirt finds it by its UUID.
func UsageBeside(user, fsid string) string { return Usage(user) + " of " + fsid }

// UUID is the UUID of a cluster's user's secret where nobody chose one: the same
// on every host, so that a migrated domain finds it.
func UUID(fsid, user string) string {
	space, err := uuid.Parse(fsid)
	if err != nil {
		space = uuid.NewSHA1(uuid.NameSpaceURL, []byte(fsid))
	}
	return uuid.NewSHA1(space, []byte("client."+user)).String()
}

// Change says what [Ensure] did, for a caller that undoes its work.
type Change int

// What Ensure can have done.
const (
	Kept    Change = iota // the secret was there, with the right key
	Updated               // it was there and its key was set, which a private secret does not show
	Created               // it was not there
)

// String is the word for a step's output.
func (c Change) String() string { return [...]string{"kept", "set", "created"}[c] }

// Ensure makes sure that a host has the secret of a user with this key. Libvirt
// allows only one of that usage: one that exists under another UUID is adopted if
// it holds this key, and the returned Secret says its UUID. Else it may be another
// cluster's, and Ensure makes one of the usage beside; without that it refuses. One
// that was ephemeral and has lost its value with the daemon gets it back.
//
// A secret that Ensure makes is private: libvirt hands its value to no client.
//
// Similar to: virsh secret-define and secret-set-value.
func Ensure(ctx context.Context, conn *libvirt.Connect, id, user string, key Key, beside string) (Secret, Change, error) {
	s := Secret{UUID: id, User: user, Usage: Usage(user)}
	if err := ctx.Err(); err != nil {
		return s, Kept, err
	}
	found, other, err := find(conn, id, user)
	if err != nil {
		return s, Kept, err
	}
	if found != nil {
		// A private secret does not show its value, so it is set again.
		has, err := found.GetValue(0)
		same := err == nil && bytes.Equal(has, key.raw)
		if same || other != id {
			_ = found.Free()
			found = nil
		}
		switch {
		case same:
			s.UUID = other
			return s, Kept, nil
		case other != id && beside == "":
			s.UUID = other
			return s, Kept, fmt.Errorf("libvirt secret %q is %s on this host, not %s, and its key may be another cluster's; "+
				"if it is this cluster's, say so: --secret-uuid %s; if not: --secret-uuid %s", s.Usage, other, id, other, id)
		case other != id:
			s.Usage = beside
		}
	}
	change := Updated
	if found == nil {
		change = Created
		if found, err = define(conn, s); err != nil {
			return s, Kept, fmt.Errorf("define libvirt secret %q: %w", s.Usage, err)
		}
	}
	defer found.Free()
	if err := found.SetValue(key.raw, 0); err != nil {
		err = fmt.Errorf("set value of libvirt secret %q: %w", s.Usage, err)
		if change == Created {
			err = errors.Join(err, found.Undefine())
		}
		return s, Kept, err
	}
	return s, change, nil
}

// find is the secret with a UUID, or the one that a user's is by its usage, and what its
// UUID is; nil if there is neither. The caller frees it.
func find(conn *libvirt.Connect, id, user string) (s *libvirt.Secret, is string, err error) {
	s, err = conn.LookupSecretByUUIDString(id)
	if errors.Is(err, libvirt.ERR_NO_SECRET) && user != "" {
		s, err = conn.LookupSecretByUsage(libvirt.SECRET_USAGE_TYPE_CEPH, Usage(user))
	}
	if errors.Is(err, libvirt.ERR_NO_SECRET) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("find libvirt secret %q: %w", Usage(user), err)
	}
	if is, err = s.GetUUIDString(); err != nil {
		return nil, "", errors.Join(fmt.Errorf("read libvirt secret %q: %w", Usage(user), err), s.Free())
	}
	if what, ceph, err := read(s); err != nil || !ceph || user != "" && what.User != user {
		_ = s.Free()
		return nil, "", errors.Join(err, fmt.Errorf("libvirt secret %s of this host is not that of client.%s", is, user))
	}
	return s, is, nil
}

func define(conn *libvirt.Connect, s Secret) (*libvirt.Secret, error) {
	xml, err := (&libvirtxml.Secret{
		Ephemeral: "no",
		Private:   "yes",
		UUID:      s.UUID,
		Usage:     &libvirtxml.SecretUsage{Type: "ceph", Name: s.Usage},
	}).Marshal()
	if err != nil {
		return nil, err
	}
	return conn.SecretDefineXML(xml, 0)
}

// Exists says whether a host has the secret with a UUID or, under another, one of the
// user's, if that is not "", whatever its key.
func Exists(conn *libvirt.Connect, id, user string) (bool, error) {
	s, _, err := find(conn, id, user)
	if err != nil || s == nil {
		return false, err
	}
	return true, s.Free()
}

// Remove removes a host's secret; one that is not there is fine.
//
// Similar to: virsh secret-undefine.
func Remove(conn *libvirt.Connect, id string) error {
	s, err := conn.LookupSecretByUUIDString(id)
	if errors.Is(err, libvirt.ERR_NO_SECRET) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find libvirt secret %s: %w", id, err)
	}
	defer s.Free()
	if err := s.Undefine(); err != nil {
		return fmt.Errorf("remove libvirt secret %s: %w", id, err)
	}
	return nil
}

// List lists a host's secrets for cephx users, by user.
//
// Similar to: virsh secret-list.
func List(conn *libvirt.Connect) ([]Secret, error) {
	found, err := conn.ListAllSecrets(0)
	if err != nil {
		return nil, fmt.Errorf("list libvirt secrets: %w", err)
	}
	all := []Secret{}
	for i := range found {
		s, ok, readErr := read(&found[i])
		err = errors.Join(err, readErr)
		if ok {
			all = append(all, s)
		}
		found[i].Free()
	}
	slices.SortFunc(all, func(a, b Secret) int { return strings.Compare(a.Usage, b.Usage) })
	return all, err
}

// read says whether the secret is one for Ceph, and which.
func read(s *libvirt.Secret) (Secret, bool, error) {
	kind, err := s.GetUsageType()
	if err != nil || kind != libvirt.SECRET_USAGE_TYPE_CEPH {
		return Secret{}, false, err
	}
	usage, err := s.GetUsageID()
	if err != nil {
		return Secret{}, false, err
	}
	id, err := s.GetUUIDString()
	user, _, _ := strings.Cut(strings.TrimPrefix(usage, "client."), " secret") // see UsageBeside
	return Secret{UUID: id, User: user, Usage: usage}, err == nil, err
}
