// Preflight: whether the destination can run the machine, asked before anything
// is moved.

package migrate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// Plan is a machine that is to move.
type Plan struct {
	VM       string // UUID
	Source   *libvirt.Connect
	Dest     *libvirt.Connect
	DestURI  string // as the source host reaches the destination
	From, To domain.Node

	// Offline is a machine that is shut off: what only matters to a running one is
	// not asked.
	Offline bool
	// TLS has the memory encrypted on its way.
	TLS bool
	// Fix does the cures that vmdisk can do, and asks again. What it made stays.
	Fix bool
	// Secret is what the destination's libvirt secret came to, which is set before the
	// preflight because the disks cannot be opened without; nil leaves it out.
	Secret *Check
	// Rewrite changes the machine's XML for the destination, as [Move.Rewrite].
	Rewrite func(xml string) (string, bool, error)
	// Clients lists who has an image open for writing, POOL/IMAGE, as the cluster FSID
	// says, whose disks name the ceph.conf Conf, or none if that is "". Nil leaves
	// unasked whether the destination opens the images of that cluster.
	Clients    func(ctx context.Context, image string) ([]string, error)
	FSID, Conf string
	// Timeout is how long the destination may take to open the disks, or to answer the
	// source; 0 is 20 s.
	Timeout time.Duration
}

const probeTimeout = 20 * time.Second

func (p Plan) limit() time.Duration {
	if p.Timeout == 0 {
		return probeTimeout
	}
	return p.Timeout
}

// Report is what a preflight found. Wait for it before the destination's
// connection is closed.
type Report struct {
	Checks []Check
	Fixed  []string // what Plan.Fix has done
	ended  []<-chan error
}

// Wait waits until the destination has ended the probes, which one that does not
// answer any more does not: then it is [domain.ErrTimeout].
func (r Report) Wait() error {
	late := time.After(probeTimeout)
	var errs []error
	for _, ended := range r.ended {
		select {
		case err := <-ended:
			errs = append(errs, err)
		case <-late:
			return &domain.Error{Op: "end", Object: "the probe", Kind: domain.ErrTimeout}
		}
	}
	return errors.Join(errs...)
}

// Preflight asks every question, also after one was answered with no. Without
// Plan.Fix it changes nothing: the probe starts a paused machine on the destination
// that has only the machine's disks, and ends it again, which Preflight does not wait
// for. What it asks on different connections it asks at once.
//
// The error is a [*CheckError] if a check failed, or says that the questions could
// not be asked; the Report is valid with either.
func Preflight(ctx context.Context, p Plan) (Report, error) {
	r, err := p.ask(ctx)
	if err == nil && p.Fix {
		if fixed, failed := mend(ctx, r.Checks); len(fixed)+len(failed) > 0 {
			before := r.ended
			r, err = p.ask(ctx)
			r.Fixed, r.ended = fixed, append(r.ended, before...)
			for i := range r.Checks {
				if why, ok := failed[r.Checks[i].Name]; ok && !r.Checks[i].OK {
					r.Checks[i].Detail += "; it could not be fixed: " + domain.Message(why)
				}
			}
		}
	}
	if err != nil {
		return r, err
	}
	failed := &CheckError{Dest: p.To.Hostname}
	for _, c := range r.Checks {
		if !c.OK {
			failed.Failed = append(failed.Failed, c)
		}
	}
	if len(failed.Failed) > 0 {
		return r, failed
	}
	return r, ctx.Err()
}

// mend does the cures that vmdisk can do.
func mend(ctx context.Context, checks []Check) (fixed []string, failed map[string]error) {
	failed = map[string]error{}
	for _, c := range checks {
		if c.OK || c.mend == nil {
			continue
		}
		if err := c.mend(ctx); err != nil {
			failed[c.Name] = err
		} else {
			fixed = append(fixed, c.done)
		}
	}
	return fixed, failed
}

// inquiry is a plan with what is known of the machine when the questions are asked.
type inquiry struct {
	Plan
	info domain.Info
	xml  *libvirtxml.Domain // as the destination would get it
	hw   domain.Hardware
	// What the source says of itself and of the machine.
	versions domain.Versions
	memory   int64 // bytes
	// noEmulator is why the destination does not have the machine's emulator.
	noEmulator error
}

// ask asks all questions once. The order of the answers is always the same.
func (p Plan) ask(ctx context.Context) (r Report, err error) {
	q, err := p.learn(ctx)
	if err != nil {
		return r, err
	}
	hosts := checkHosts(p.From, p.To)
	if !hosts.OK {
		r.Checks = []Check{q.checkRunning(), hosts}
		return r, nil
	}
	groups := []func(context.Context) []Check{
		q.askSource,
		q.askDest,
		func(context.Context) []Check { return append(q.checkParts(), q.checkCache()...) },
		func(ctx context.Context) (all []Check) { all, r.ended = q.checkOpens(ctx); return all },
	}
	answers := make([][]Check, len(groups))
	var all sync.WaitGroup
	for i, ask := range groups {
		all.Go(func() { answers[i] = ask(ctx) })
	}
	all.Wait()
	for _, some := range answers {
		r.Checks = append(r.Checks, some...)
	}
	r.Checks = append([]Check{q.checkRunning(), hosts, explained(answers[0][0], r.Checks)}, r.Checks[1:]...)
	for _, c := range r.Checks {
		if errors.Is(c.Err, domain.ErrTimeout) && (domain.Lost(p.Source) || domain.Lost(p.Dest)) {
			return r, c.Err // that nobody answers is no answer
		}
	}
	return r, ctx.Err()
}

// learn reads the machine, once for all questions.
func (p Plan) learn(ctx context.Context) (*inquiry, error) {
	q := &inquiry{Plan: p}
	var err error
	if q.info, err = domain.Find(ctx, p.Source, p.VM); err != nil {
		return nil, err
	}
	if q.versions, err = domain.DescribeVersions(ctx, p.Source); err != nil {
		return nil, err
	}
	if q.memory, err = domain.GuestMemory(ctx, p.Source, p.VM); err != nil {
		return nil, err
	}
	text, _, err := domain.MigratableXML(ctx, p.Source, p.VM)
	if err != nil {
		return nil, err
	}
	if p.Rewrite != nil {
		if text, _, err = p.Rewrite(text); err != nil {
			return nil, err
		}
	}
	q.xml = &libvirtxml.Domain{}
	if err := q.xml.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("read XML of %s: %w", q.info.Name, err)
	}
	q.hw = domain.Hardware{VirtType: q.xml.Type}
	if q.xml.OS != nil && q.xml.OS.Type != nil {
		q.hw.Arch, q.hw.Machine = q.xml.OS.Type.Arch, q.xml.OS.Type.Machine
	}
	if q.xml.Devices == nil {
		q.xml.Devices = &libvirtxml.DomainDeviceList{}
	}
	q.hw.Emulator = q.xml.Devices.Emulator
	own := q.hw
	own.Machine = ""
	q.noEmulator = domain.Offers(ctx, p.Dest, own)
	if domain.Lost(p.Dest) {
		return nil, q.noEmulator
	}
	return q, nil
}
