// The libvirt secret with the cephx key: set before anything needs it.

package vmdisk

import (
	"context"
	"sync"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/secret"
	"libvirt.org/go/libvirt"
)

// SetSecret makes sure that the host has the secret with the key of the
// configured cephx user, as every workflow that needs it does by itself.
//
// Similar to: virsh secret-define and secret-set-value.
func (h *Host) SetSecret(ctx context.Context) (secret.Secret, secret.Change, error) {
	var with session
	defer with.end()
	if err := with.open(ctx, h); err != nil {
		return secret.Secret{}, secret.Kept, failed("set", "secret", err)
	}
	s, change, err := h.ensureSecret(ctx, with.cluster, with.conn)
	return s, change, failed("set", "secret", err)
}

// Secrets lists the host's secrets for Ceph.
//
// Similar to: virsh secret-list.
func (h *Host) Secrets(ctx context.Context) ([]secret.Secret, error) {
	conn, giveBack, err := h.borrow(ctx)
	if err != nil {
		return nil, failed("list", "secrets", err)
	}
	defer giveBack()
	all, err := secret.List(conn)
	return all, failed("list", "secrets", err)
}

func (h *Host) ensureSecret(ctx context.Context, cluster *disk.Cluster, conn *libvirt.Connect) (secret.Secret, secret.Change, error) {
	key, err := secret.ReadKey(cluster.Keyrings(), cluster.User())
	if err != nil {
		return secret.Secret{}, secret.Kept, err
	}
	id := h.cfg.SecretUUID
	if id == "" {
		id = secret.UUID(cluster.FSID(), cluster.User())
	}
	return secret.Ensure(ctx, conn, id, cluster.User(), key)
}

// secretUse counts the workflows that use a secret which one of them made on a
// host, so that one that fails does not take it from the others.
type secretUse struct {
	mu    sync.Mutex
	users int
	made  bool
}

// secretStep makes sure of the secret and leaves it in *out. Undone, it removes a
// secret that was not there before, unless another workflow uses it by now.
func (h *Host) secretStep(use *secretUse, on session, out *secret.Secret) step {
	var change secret.Change
	return step{
		name:   "secret",
		detail: func() string { return out.Usage + " " + change.String() },
		do: func(ctx context.Context) (err error) {
			use.mu.Lock()
			defer use.mu.Unlock()
			*out, change, err = h.ensureSecret(ctx, on.cluster, on.conn)
			if err == nil {
				use.users++
				use.made = use.made || change == secret.Created
			}
			return err
		},
		undo: func(context.Context) error {
			use.mu.Lock()
			defer use.mu.Unlock()
			use.users--
			if use.users > 0 || !use.made {
				return errNothing
			}
			use.made = false
			return secret.Remove(on.conn, out.UUID)
		},
	}
}

// keepSecret is called when the workflow of a secretStep has succeeded: from now
// on a machine needs the secret.
func (h *Host) keepSecret() {
	use := &h.secrets
	use.mu.Lock()
	defer use.mu.Unlock()
	use.users--
	use.made = false
}
