// Adopt of all machines that Nova has left on a host.

package vmdisk

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"golang.org/x/sync/errgroup"
)

// adoptJobs is how many machines are adopted at once, unless one says otherwise: while
// one is handed over, another is copied.
const adoptJobs = 2

// InstancesOptions say how the machines of a host are adopted.
type InstancesOptions struct {
	Jobs   int  // how many at once; 0 is 2
	DryRun bool // only say what would be done
	Adopt  AdoptOptions
}

// AdoptInstances adopts all machines of the host whose folder is in dir, Nova's folder
// of instances, as [Host.Adopt] does each. It lists them, folders without a definition,
// and machines without a folder: those are not touched.
//
// One that cannot be adopted does not keep the others: the error is an
// [*InstancesError] then, and the list says for each what came of it. If ctx ends, those
// under way stay where they were, and the rest, too; the same call goes on with what is
// left, for a machine that has all its disks in Ceph is done with.
func (h *Host) AdoptInstances(ctx context.Context, dir string, o InstancesOptions) ([]Instance, error) {
	const op = "adopt instances"
	m := &adoptingMany{h: h, o: o, op: op}
	defer m.end()
	err := m.open(ctx, h)
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err == nil {
		m.all, err = h.instances(ctx, m.session, dir)
	}
	if err != nil {
		return nil, failed(op, dir, err)
	}
	m.run(ctx)
	return m.all, m.verdict(dir)
}

// adoptingMany is one that is under way.
type adoptingMany struct {
	session
	h   *Host
	o   InstancesOptions
	op  string
	all []Instance
}

func (m *adoptingMany) run(ctx context.Context) {
	var group errgroup.Group
	group.SetLimit(cmp.Or(m.o.Jobs, adoptJobs))
	for k := range m.all {
		i := &m.all[k]
		if !i.Whole() {
			continue
		}
		group.Go(func() error {
			m.adopt(ctx, i)
			return nil
		})
	}
	_ = group.Wait()
}

// adopt adopts one machine, or says what that would be.
func (m *adoptingMany) adopt(ctx context.Context, i *Instance) {
	if ctx.Err() != nil {
		i.Err = failed("adopt", i.VM, ctx.Err())
		return
	}
	do := m.h.Adopt
	if m.o.DryRun {
		do = m.h.PlanAdoption
	}
	begin := time.Now()
	event := Event{Kind: Started, Op: m.op, Object: i.VM, Step: "adopt", Detail: i.VM}
	m.h.emit(event)
	a, err := do(ctx, i.UUID, m.o.Adopt)
	if i.Disks = a.Disks; errors.Is(err, errInCeph) {
		err = nil // it has no disk in a file any more
	}
	event.Elapsed, event.Detail = time.Since(begin), i.outcome(m.o.DryRun)
	if event.Kind, i.Err = Done, err; err != nil {
		event.Kind, event.Err, event.Detail = Failed, err, i.VM
	}
	m.h.emit(event)
}

// outcome is what came of a machine, for people.
func (i Instance) outcome(dry bool) string {
	size := int64(0)
	for _, d := range i.Disks {
		size += d.Size
	}
	switch {
	case len(i.Disks) == 0:
		return i.VM + ", which is in Ceph"
	case dry:
		return i.VM + ", would be " + disk.FormatSize(size)
	}
	return i.VM + ", " + disk.FormatSize(size)
}

func (m *adoptingMany) verdict(dir string) error {
	e := &InstancesError{Dir: dir}
	for _, i := range m.all {
		if !i.Whole() {
			continue
		}
		e.Of++
		if i.Err != nil {
			e.VMs, e.Errs = append(e.VMs, i.VM), append(e.Errs, i.Err)
		}
	}
	if len(e.Errs) == 0 {
		return nil
	}
	return e
}
