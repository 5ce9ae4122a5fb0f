package vmdisk

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/secret"
)

// A host has one secret of a usage. That of another cluster is not overwritten; who says
// which UUID is this cluster's has it beside.
func TestSecretBesideAnotherClusters(t *testing.T) {
	conn, other := connected(t, 1), uuid.NewString()
	forgetUnusedSecrets(t)
	_, _, err := secret.Ensure(t.Context(), conn, other, "cinder", wrongKey(t), "")
	must(t, err)
	t.Cleanup(func() { must(t, secret.Remove(conn, other)) })
	h := open(t, 1)
	cluster := mustCluster(t, h)
	id := h.secretUUID(cluster)
	_, _, err = h.SetSecret(t.Context())
	if err == nil || !strings.Contains(err.Error(), "--secret-uuid "+other) || !strings.Contains(err.Error(), "--secret-uuid "+id) {
		t.Errorf("error is %v", err)
	}
	cfg := config(1)
	cfg.SecretUUID = id
	explicit, err := Open(t.Context(), cfg)
	must(t, err)
	defer explicit.Close()
	for _, h := range []*Host{explicit, explicit, h} { // one that is there is found without that, too
		s, _, err := h.SetSecret(t.Context())
		if err != nil || s.UUID != id {
			t.Errorf("secret is %+v: %v", s, err)
		}
	}
	t.Cleanup(func() { must(t, secret.Remove(conn, id)) })
	all, err := secret.List(conn)
	must(t, err)
	if !slices.Contains(all, secret.Secret{UUID: id, User: "cinder", Usage: secret.UsageBeside("cinder", cluster.FSID())}) {
		t.Errorf("the host has %+v", all)
	}
}
