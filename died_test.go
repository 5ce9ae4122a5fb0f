// A process that dies at any moment of a workflow leaves what a repair brings to an
// end: it has happened, or it has not.

package vmdisk

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/disk"
)

// dies ends a workflow at a point as the death of its process would: nothing is
// undone, and its journal entry is nobody's.
func dies(t *testing.T, h *Host, p point, work func() error) {
	t.Helper()
	at := counter()
	h.fault = func(_, step string, when phase) error {
		if at(step, when) == p {
			return disk.ErrTaken
		}
		return nil
	}
	err := work()
	h.fault = nil
	if !errors.Is(err, disk.ErrTaken) {
		t.Errorf("error is %v", err)
	}
	cluster, err := h.Cluster(t.Context())
	must(t, err)
	for _, pool := range h.pools() {
		all, err := cluster.Operations(t.Context(), pool)
		must(t, err)
		for _, o := range all {
			must(t, cluster.Abandon(t.Context(), &o))
		}
	}
}

// Making an image is not among them: the process that dies has it open, which this
// one would go on to have.
func TestDiedIsRepaired(t *testing.T) {
	for _, w := range []rollsBack{
		{name: "start", prepare: prepareStart},
		{name: "attach", prepare: prepareAttach},
		{name: "limit", prepare: prepareLimit},
		{name: "migrate", prepare: prepareMigrate},
		{name: "resize", prepare: prepareResize},
		{name: "rescue", prepare: prepareRescue},
		{name: "rebuild", prepare: prepareRebuild},
	} {
		t.Run(w.name, func(t *testing.T) {
			h := open(t, 0)
			work, reverse := w.prepare(t, h)
			all := points(t, h, work)
			must(t, reverse())
			for _, p := range all {
				t.Run(p.String(), func(t *testing.T) {
					was := stateNow(t)
					dies(t, h, p, work)
					r, err := open(t, 0).Repair(t.Context(), RepairOptions{})
					if err != nil {
						t.Errorf("repair: %v", err)
					}
					if again, err := open(t, 0).Repair(t.Context(), RepairOptions{}); err != nil || again.Changed() {
						t.Errorf("a second repair changes %+v, %v", again, err)
					}
					if cmp.Diff(was, stateNow(t)) == "" {
						return
					}
					if err := reverse(); err != nil {
						t.Errorf("it has neither happened nor not, after %v: %v", r.Operations, err)
					}
					was.same(t)
				})
			}
		})
	}
}
