// Pools: found, made, and marked for RBD.

package disk

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// Pools are the names of the pools that Glance, Cinder, cinder-backup and Nova use.
func Pools() []string { return []string{ImagePool, VolumePool, "backups", VMPool} }

// rbdApplication marks a pool as RBD's.
const rbdApplication = "rbd"

// Pool is what a pool is.
type Pool struct {
	Name         string
	Erasure      bool // erasure-coded, which RBD's headers cannot be in
	PGs          int
	Applications []string // who uses it: "rbd", "cephfs", "rgw" …
	Initialised  bool     // rbd pool init was run
}

// noPool is the error for a pool that does not exist.
func noPool(name string) *Error {
	e := &Error{Op: "open", Object: "pool " + name, Kind: ErrNotFound, Reason: "no such pool"}
	if slices.Contains(Pools(), name) {
		e.Reason += "; to make it:  vmdisk cluster init --id admin --cluster-only"
	}
	return e
}

// Pool describes a pool. One that does not exist is [ErrNotFound].
//
// Similar to: ceph osd pool ls detail.
func (c *Cluster) Pool(ctx context.Context, name string) (Pool, error) {
	var all []struct {
		Name         string `json:"pool_name"`
		Type         int
		PGs          int                       `json:"pg_num"`
		Applications map[string]map[string]any `json:"application_metadata"`
	}
	if err := c.AskJSON(ctx, map[string]any{"prefix": "osd pool ls", "detail": "detail"}, &all); err != nil {
		return Pool{}, err
	}
	const erasure = 3 // Source: pg_pool_t in Ceph's osd_types.h
	for _, p := range all {
		if p.Name != name {
			continue
		}
		found := Pool{Name: name, Erasure: p.Type == erasure, PGs: p.PGs, Applications: slices.Sorted(maps.Keys(p.Applications))}
		if found.Erasure || !slices.Contains(found.Applications, rbdApplication) {
			return found, nil
		}
		err := c.pool(ctx, name, func(io *rados.IOContext) error {
			_, err := io.Stat("rbd_info")
			found.Initialised = err == nil
			return wrap("look into", "pool "+name, ignore(err, ErrNotFound))
		})
		return found, err
	}
	return Pool{}, noPool(name)
}

// CreatePool makes a replicated pool with pgs placement groups; 0 leaves them to
// the cluster (osd_pool_default_pg_num and the autoscaler). One that exists is left
// as it is.
//
// Similar to: ceph osd pool create.
func (c *Cluster) CreatePool(ctx context.Context, name string, pgs int) error {
	command := map[string]any{"prefix": "osd pool create", "pool": name, "pool_type": "replicated"}
	if pgs > 0 {
		command["pg_num"] = pgs
	}
	_, err := c.Ask(ctx, command)
	var e *Error
	if errors.As(err, &e) {
		e.Op, e.Object = "create", "pool "+name
	}
	return err
}

// InitPool marks a pool as RBD's. One that is another application's is left as it
// is and fails. It blocks until the pool can be written to.
//
// Similar to: rbd pool init.
func (c *Cluster) InitPool(ctx context.Context, name string) error {
	return c.pool(ctx, name, func(io *rados.IOContext) error {
		return wrap("initialise", "pool "+name, rbd.PoolInit(io, false))
	})
}
