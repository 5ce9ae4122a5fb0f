// What the source is asked: whether the machine can leave, and how the destination
// looks from there.

package migrate

import (
	"context"
	"errors"

	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

func (q *inquiry) checkRunning() Check {
	const name = "state"
	switch {
	case q.Offline && q.info.Running:
		return fail(name, domain.ErrExists, "%s is %s", q.info.Name, q.info.State).
			on(q.From.Hostname, "vmdisk stop %s, or move it live: without --offline", q.info.Name)
	case !q.Offline && !q.info.Running:
		return fail(name, domain.ErrNotRunning, "%s is %s, there is no memory to move", q.info.Name, q.info.State).
			on(q.From.Hostname, "vmdisk start %s", q.info.Name)
	}
	return pass(name, "%s is %s", q.info.Name, q.info.State)
}

func checkHosts(from, to domain.Node) Check {
	const name = "other host"
	switch {
	case from.UUID == to.UUID:
		return fail(name, ErrSameHost, "%s and %s are the same host (UUID %s)", from.Hostname, to.Hostname, to.UUID).
			on(to.Hostname, "give it a host_uuid of its own in /etc/libvirt/libvirtd.conf")
	case from.Hostname == to.Hostname:
		return fail(name, ErrSameHost, "source and destination are both named %s, which libvirt takes for one host", to.Hostname).
			on(to.Hostname, "hostnamectl set-hostname NAME")
	}
	return pass(name, "%s to %s", from.Hostname, to.Hostname)
}

// askSource asks the source whether it would let the machine go, [inquiry.checkReached]
// first. That begins a job of libvirt's, and one that there is would hold it up.
func (q *inquiry) askSource(ctx context.Context) []Check {
	rest := q.checkRest(ctx)
	for _, c := range rest {
		if !c.OK {
			return append([]Check{warn("reachable", "not asked, for libvirt would not begin")}, rest...)
		}
	}
	return append([]Check{q.checkReached(ctx)}, rest...)
}

func (q *inquiry) checkRest(ctx context.Context) []Check {
	const name = "at rest"
	found, err := domain.Hindrances(ctx, q.Source, q.info)
	if err != nil {
		return []Check{fail(name, err, "%s: %s", q.From.Hostname, domain.Message(err))}
	}
	if len(found) == 0 {
		return []Check{pass(name, "no snapshots, no jobs")}
	}
	var all []Check
	for _, h := range found {
		all = append(all, fail(name, ErrUnsafe, "%s %s", q.info.Name, h.What).on(q.From.Hostname, "%s", h.Cure))
	}
	return all
}

// checkReached has the source's libvirt connect to the destination, as a migration
// does: that this process reaches both says nothing of it.
func (q *inquiry) checkReached(ctx context.Context) Check {
	const name = "reachable"
	job := flags
	if !q.info.Running {
		job = libvirt.MIGRATE_OFFLINE | libvirt.MIGRATE_PEER2PEER | libvirt.MIGRATE_PERSIST_DEST
	}
	// A connection of its own: others may be in use, and this may hang.
	conn, err := domain.Another(ctx, q.Source, q.limit())
	if err == nil {
		err = domain.Rehearse(ctx, conn, q.VM, q.DestURI, job)
		if !domain.Lost(conn) {
			_, _ = domain.Close(ctx, conn)
		}
	}
	switch {
	case errors.Is(err, domain.ErrImmovable):
		return fail(name, errors.Join(ErrUnsafe, err), "%s would not move %s: %s", q.From.Hostname, q.info.Name, reason(err))
	case errors.Is(err, domain.ErrTimeout):
		return fail(name, err, "%s gets no answer from %s", q.From.Hostname, q.DestURI).on(q.From.Hostname, "virsh -c '%s' hostname", q.DestURI)
	case err != nil:
		return fail(name, err, "%s does not reach %s: %s", q.From.Hostname, q.DestURI, reason(err)).on(q.From.Hostname, "virsh -c '%s' hostname", q.DestURI)
	}
	return pass(name, "%s from %s", q.To.Hostname, q.From.Hostname)
}

// explained takes back that libvirt would not move the machine if another answer says
// why: then it has not connected either.
func explained(c Check, others []Check) Check {
	if !errors.Is(c.Err, domain.ErrImmovable) {
		return c
	}
	for _, other := range others {
		if errors.Is(other.Err, ErrUnsafe) {
			return warn(c.Name, "not asked, for libvirt would not begin")
		}
	}
	return c
}

// reason is what libvirt said, without what was being done.
func reason(err error) string {
	var own *domain.Error
	if errors.As(err, &own) && own.Err != nil {
		return domain.Message(own.Err)
	}
	return domain.Message(err)
}
