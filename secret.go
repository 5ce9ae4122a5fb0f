// The libvirt secret with the cephx key: set before anything needs it.

package vmdisk

import (
	"context"

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
	return secret.Ensure(ctx, conn, h.secretUUID(cluster), cluster.User(), key, h.secretBeside(cluster))
}

// secretUUID is what the secret is called where vmdisk makes it.
func (h *Host) secretUUID(cluster *disk.Cluster) string {
	if h.cfg.SecretUUID != "" {
		return h.cfg.SecretUUID
	}
	return secret.UUID(cluster.FSID(), cluster.User())
}

// secretBeside is under which usage it may be beside another cluster's: who says its UUID
// says that what has another is not this cluster's.
func (h *Host) secretBeside(cluster *disk.Cluster) string {
	if h.cfg.SecretUUID == "" {
		return ""
	}
	return secret.UsageBeside(cluster.User(), cluster.FSID())
}

// secretStep makes sure of the secret and leaves it in *out. Taken back, it removes
// a secret that was not there before, unless something needs it by now. uri is how
// others than on's host reach its libvirt, if it is not Config.URI's.
func (h *Host) secretStep(on *session, uri string, out *secret.Secret) step {
	var change secret.Change
	s := step{
		name:   "secret",
		detail: func() string { return out.Usage + " " + change.String() },
		do: func(ctx context.Context) (err error) {
			*out, change, err = h.ensureSecret(ctx, on.cluster, on.conn)
			return err
		},
	}
	id, user := h.secretUUID(on.cluster), on.cluster.User()
	if h.secretBeside(on.cluster) != "" {
		user = "" // what has another UUID is another cluster's
	}
	if there, err := secret.Exists(on.conn, id, user); err == nil && !there {
		s.back = []action{{Verb: actRemoveSecret, Secret: id, Host: on.host, URI: uri}}
	}
	return s
}
