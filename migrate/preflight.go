// Preflight: whether the destination can run the machine, asked before anything
// is moved.

package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// Check is one question of the preflight and its answer.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Err    error  `json:"-"` // nil if OK; matches a sentinel of this package or of domain
}

// Plan is a machine that is to move.
type Plan struct {
	VM     string
	Source *libvirt.Connect
	Dest   *libvirt.Connect
	// Probe is a disk of the machine's cluster, as the destination would open
	// it. Nil leaves the question whether it can unasked.
	Probe *domain.Disk
	// Timeout is how long the destination may take to open the probe; 0 is 20 s.
	Timeout time.Duration
}

const probeTimeout = 20 * time.Second

// Report is what a preflight found. Wait for it before the destination's
// connection is closed.
type Report struct {
	Checks []Check
	ended  <-chan error // the probe, or nil
}

// Wait waits until the destination has ended the probe, which one that does not
// answer any more does not: then it is [domain.ErrTimeout].
func (r Report) Wait() error {
	if r.ended == nil {
		return nil
	}
	select {
	case err := <-r.ended:
		return err
	case <-time.After(probeTimeout):
		return &domain.Error{Op: "end", Object: "the probe", Kind: domain.ErrTimeout}
	}
}

// Preflight asks every question, also after one was answered with no. It changes
// nothing; the probe starts a paused machine on the destination that has only a
// disk, and ends it again, which Preflight does not wait for.
//
// The error is a [*CheckError] if a check failed, or says that the question could
// not be asked; the Report is valid with either.
func Preflight(ctx context.Context, p Plan) (Report, error) {
	var r Report
	from, err := domain.DescribeNode(ctx, p.Source)
	if err != nil {
		return r, err
	}
	to, err := domain.DescribeNode(ctx, p.Dest)
	if err != nil {
		return r, err
	}
	info, err := domain.Find(ctx, p.Source, p.VM)
	if err != nil {
		return r, err
	}
	xml, err := liveXML(p.Source, info.UUID)
	if err != nil {
		return r, err
	}
	r.Checks = []Check{checkRunning(info), checkHosts(from, to)}
	if r.Checks[1].OK {
		r.Checks = append(r.Checks,
			checkName(ctx, p.Dest, to, info),
			checkDisks(info),
			checkMachine(p.Dest, to, xml),
			checkCPU(p.Dest, to, xml))
		if p.Probe != nil {
			var ceph Check
			ceph, r.ended = checkCeph(ctx, p, to, xml)
			r.Checks = append(r.Checks, ceph)
		}
	}
	failed := &CheckError{Dest: to.Hostname}
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

func pass(name, format string, args ...any) Check {
	return Check{Name: name, OK: true, Detail: fmt.Sprintf(format, args...)}
}

func fail(name string, kind error, format string, args ...any) Check {
	return Check{Name: name, Detail: fmt.Sprintf(format, args...), Err: kind}
}

// liveXML is the running machine, as it would be sent to the destination.
func liveXML(conn *libvirt.Connect, uuid string) (*libvirtxml.Domain, error) {
	d, err := conn.LookupDomainByUUIDString(uuid)
	if err != nil {
		return nil, err
	}
	defer d.Free()
	text, err := d.GetXMLDesc(libvirt.DOMAIN_XML_MIGRATABLE)
	if err != nil {
		return nil, err
	}
	xml := &libvirtxml.Domain{}
	return xml, xml.Unmarshal(text)
}

func checkRunning(info domain.Info) Check {
	if !info.Running {
		return fail("running", domain.ErrNotRunning, "%s is %s, there is no memory to move", info.Name, info.State)
	}
	return pass("running", "%s is %s", info.Name, info.State)
}

func checkHosts(from, to domain.Node) Check {
	const name = "other host"
	switch {
	case from.UUID == to.UUID:
		return fail(name, ErrSameHost, "%s and %s are the same host (UUID %s)", from.Hostname, to.Hostname, to.UUID)
	case from.Hostname == to.Hostname:
		return fail(name, ErrSameHost, "source and destination are both named %s, which libvirt takes for one host", to.Hostname)
	}
	return pass(name, "%s to %s", from.Hostname, to.Hostname)
}

// checkName looks for another machine of this name or UUID. One with both that
// is shut off is what a migration without UNDEFINE_SOURCE leaves; libvirt
// replaces it.
func checkName(ctx context.Context, dest *libvirt.Connect, to domain.Node, info domain.Info) Check {
	const name = "name is free"
	for _, key := range []string{info.Name, info.UUID} {
		has, err := domain.Find(ctx, dest, key)
		switch {
		case errors.Is(err, domain.ErrNotFound):
			continue
		case err != nil:
			return fail(name, err, "%s: %v", to.Hostname, err)
		case has.UUID != info.UUID || has.Name != info.Name:
			return fail(name, domain.ErrExists, "%s has another VM %s (%s)", to.Hostname, has.Name, has.UUID)
		case has.Running:
			return fail(name, domain.ErrExists, "%s runs on %s too", has.Name, to.Hostname)
		}
	}
	return pass(name, "no other %s on %s", info.Name, to.Hostname)
}

// checkDisks refuses what only the source can read, and a cache that could hold
// writes back from the destination.
func checkDisks(info domain.Info) Check {
	const name = "disks"
	for _, d := range info.Disks {
		if d.Pool == "" && d.Source != "" {
			return fail(name, ErrUnsafe, "%s is %s and not in Ceph", d.Target, d.Source)
		}
		if d.Cache == "unsafe" {
			return fail(name, ErrUnsafe, "%s has cache=unsafe, which ignores flushes", d.Target)
		}
	}
	return pass(name, "all in Ceph")
}

func checkMachine(dest *libvirt.Connect, to domain.Node, xml *libvirtxml.Domain) Check {
	const name = "machine type"
	if xml.OS == nil || xml.OS.Type == nil {
		return pass(name, "any")
	}
	arch, machine := xml.OS.Type.Arch, xml.OS.Type.Machine
	if _, err := dest.GetDomainCapabilities("", arch, machine, xml.Type, 0); err != nil {
		return fail(name, ErrUnfit, "%s has no %s %s for %s: %s", to.Hostname, xml.Type, machine, arch, domain.Message(err))
	}
	return pass(name, "%s %s", xml.Type, machine)
}

// checkCPU compares the guest's CPU with what the destination's hypervisor can
// give. An emulated CPU without a model of its own is the same everywhere.
func checkCPU(dest *libvirt.Connect, to domain.Node, xml *libvirtxml.Domain) Check {
	const name = "CPU"
	if xml.CPU == nil || xml.CPU.Model == nil {
		return pass(name, "no model asked for")
	}
	text, err := xml.CPU.Marshal()
	if err != nil {
		return fail(name, ErrUnfit, "%v", err)
	}
	result, err := dest.CompareHypervisorCPU("", xml.OS.Type.Arch, xml.OS.Type.Machine, xml.Type, text, 0)
	switch {
	case err != nil:
		return fail(name, ErrUnfit, "%s cannot give %s: %s", to.Hostname, xml.CPU.Model.Value, domain.Message(err))
	case result == libvirt.CPU_COMPARE_INCOMPATIBLE:
		return fail(name, ErrUnfit, "%s cannot give %s", to.Hostname, xml.CPU.Model.Value)
	}
	return pass(name, "%s", xml.CPU.Model.Value)
}

// checkCeph has the destination's own QEMU open a disk: that its librbd is
// there, that its secret is right, and that it reaches monitors and OSDs.
func checkCeph(ctx context.Context, p Plan, to domain.Node, xml *libvirtxml.Domain) (Check, <-chan error) {
	const name = "Ceph"
	limit := p.Timeout
	if limit == 0 {
		limit = probeTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	image := p.Probe.Pool + "/" + p.Probe.Image
	ended, err := domain.Probe(ctx, p.Dest, xml.Type, *p.Probe)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fail(name, domain.ErrTimeout, "QEMU on %s did not get to open %s within %v", to.Hostname, image, limit), ended
	case err != nil:
		return fail(name, errors.Join(ErrUnfit, err), "QEMU on %s cannot open %s: %s", to.Hostname, image, domain.Message(err)), ended
	}
	return pass(name, "QEMU on %s opens %s", to.Hostname, image), ended
}
