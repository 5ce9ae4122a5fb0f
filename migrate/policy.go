// Policy: how a guest's memory is copied, and what is done about a guest that writes
// it faster than that.

package migrate

import (
	"fmt"
	"math"
	"time"

	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// Stall is what is done about a migration that gets no nearer to its end.
type Stall string

// The ways to end a migration that does not converge. Whichever it is, one that gets
// no nearer even then is aborted.
const (
	StallAutoConverge Stall = "auto-converge" // slow the guest down until it does
	StallAbort        Stall = "abort"         // leave it where it is
	StallPostcopy     Stall = "postcopy"      // run it there, and fetch what is missing
	StallPause        Stall = "pause"         // stop it until all is copied
)

// Policy says how a guest is moved. The zero value suits a normal one.
type Policy struct {
	// Downtime is how long the guest may stand still at the end; 0 is 500 ms. It is
	// reached in steps: a guest that converges with less stands still for less.
	Downtime time.Duration
	// FirstDowntime is what is tried first of that; 0 is a tenth, see [Policy.For].
	FirstDowntime time.Duration
	// Bandwidth is the most that is sent, in bytes a second; 0 is what was set for the
	// machine (virsh migrate-setspeed), which is no limit if nothing was. Libvirt counts
	// in MiB: it is rounded up.
	Bandwidth int64
	// Timeout is how long the whole may take before it is aborted, unless it is in
	// post-copy, where it cannot be; 0 is no limit, for a guest whose migration gets
	// nearer to its end.
	Timeout time.Duration
	// StallAfter is how long a migration may get no nearer to its end before OnStall is
	// done; 0 is 30 s, and 10 s for each GiB of the guest's memory.
	StallAfter time.Duration
	// OnStall is what is done then; "" is StallPostcopy with Postcopy, and else
	// StallAutoConverge. QEMU wants to know of auto-converge before it begins, and slows
	// a guest down when it writes more than half of what is sent, pass after pass: so
	// with StallAutoConverge it may from the start, and what is left to do about a stall
	// then is to abort.
	OnStall Stall

	AutoConverge bool // slow the guest down if it takes that, whatever OnStall is
	Postcopy     bool // switch to post-copy after the first pass
	Parallel     int  // connections; 0 is one, which is not the same as 1 in parallel
	Compress     bool // send what changed in a page and not the page (XBZRLE)
	TLS          bool // encrypt the memory on its way
}

// QEMU's limits.
const (
	mostDowntime = 2000 * time.Second
	mostParallel = 255
)

// Check says what is wrong with a policy, before anything is begun with it; that is
// [domain.ErrInvalid].
func (p Policy) Check() error {
	switch {
	case p.Downtime < 0 || p.Downtime > 0 && p.Downtime < time.Millisecond || p.Downtime > mostDowntime:
		return bad("a downtime of %v is not between 1 ms and %v", p.Downtime, mostDowntime)
	case p.Bandwidth < 0:
		return bad("a bandwidth of %d bytes a second is below 0", p.Bandwidth)
	case p.Timeout < 0:
		return bad("a time limit of %v is below 0", p.Timeout)
	case p.StallAfter < 0:
		return bad("a stall after %v is below 0", p.StallAfter)
	case p.Parallel < 0 || p.Parallel > mostParallel:
		return bad("%d parallel connections are not between 1 and %d", p.Parallel, mostParallel)
	}
	switch p.OnStall {
	case "", StallAutoConverge, StallAbort, StallPostcopy, StallPause:
	default:
		return bad("%q is nothing to do about a stall: %s, %s, %s or %s", p.OnStall,
			StallAbort, StallAutoConverge, StallPostcopy, StallPause)
	}
	switch {
	case p.Parallel > 0 && p.postcopy(): // libvirt takes it, and QEMU crashes at the switch
		return bad("parallel connections and post-copy exclude each other in QEMU")
	case p.Parallel > 0 && p.Compress:
		return bad("parallel connections and compression exclude each other in QEMU")
	}
	return nil
}

func bad(format string, args ...any) error {
	return &domain.Error{Object: "migration", Kind: domain.ErrInvalid, Reason: fmt.Sprintf(format, args...)}
}

// onStall is OnStall, or its default.
func (p Policy) onStall() Stall {
	switch {
	case p.OnStall != "":
		return p.OnStall
	case p.Postcopy:
		return StallPostcopy
	}
	return StallAutoConverge
}

// postcopy says whether the migration may come to that.
func (p Policy) postcopy() bool { return p.Postcopy || p.OnStall == StallPostcopy }

// autoConverge says whether the guest may be slowed down.
func (p Policy) autoConverge() bool { return p.AutoConverge || p.onStall() == StallAutoConverge }

// stallAfter is StallAfter, or its default for a guest with so many bytes of memory.
func (p Policy) stallAfter(memory uint64) time.Duration {
	if p.StallAfter > 0 {
		return p.StallAfter
	}
	return 30*time.Second + time.Duration(float64(memory)/(1<<30)*float64(10*time.Second))
}

// flags are libvirt's for it.
func (p Policy) flags() (f libvirt.DomainMigrateFlags) {
	for _, one := range []struct {
		on   bool
		flag libvirt.DomainMigrateFlags
	}{
		{p.autoConverge(), libvirt.MIGRATE_AUTO_CONVERGE},
		{p.postcopy(), libvirt.MIGRATE_POSTCOPY},
		{p.Parallel > 0, libvirt.MIGRATE_PARALLEL},
		{p.Compress, libvirt.MIGRATE_COMPRESSED},
		{p.TLS, libvirt.MIGRATE_TLS},
	} {
		if one.on {
			f |= one.flag
		}
	}
	return f
}

// set adds libvirt's parameters for it.
func (p Policy) set(params *libvirt.DomainMigrateParameters) {
	if p.Bandwidth > 0 {
		params.Bandwidth, params.BandwidthSet = uint64((p.Bandwidth-1)>>20+1), true // in post-copy, too
	}
	if p.Parallel > 0 {
		params.ParallelConnections, params.ParallelConnectionsSet = p.Parallel, true
	}
	if p.Compress {
		params.Compression, params.CompressionSet = "xbzrle", true
	}
}

// downtimeSteps is in how many steps the downtime comes to its limit, as in Nova.
const downtimeSteps = 10

// downtime is how long the guest may stand still, by the step: the limit's tenth first.
// Nova takes a step on the clock; here one is taken when a pass gets no nearer.
type downtime struct {
	first, limit time.Duration
	step         int
}

func (p Policy) downtime() *downtime {
	d := &downtime{limit: p.longestDowntime()}
	if d.first = min(p.FirstDowntime, d.limit); d.first == 0 {
		d.first = d.limit / downtimeSteps
	}
	return d
}

// emulatedDowntime is what is tried first with a guest that is emulated: QEMU's default.
const emulatedDowntime = 300 * time.Millisecond

// For is the policy for a guest whose CPUs are emulated, or not. When what is left comes
// near to what the downtime allows, QEMU asks again and again which pages were written,
// and its TCG can lose some each time: a store may slip between the asking and the
// answer, and the guest crashes on the destination. A longer downtime at the start has it
// ask less.
func (p Policy) For(emulated bool) Policy {
	if emulated && p.FirstDowntime == 0 {
		p.FirstDowntime = emulatedDowntime
	}
	return p
}

// now is the step's, at least a millisecond.
func (d *downtime) now() time.Duration { return d.at(d.step) }

func (d *downtime) at(step int) time.Duration {
	return max(d.first+(d.limit-d.first)*time.Duration(step)/downtimeSteps, time.Millisecond).Truncate(time.Millisecond)
}

// last says that it cannot be raised any more.
func (d *downtime) last() bool { return d.step >= downtimeSteps }

// raise takes a step, or as many as it takes for so many bytes at this rate, if the
// limit is enough for those.
func (d *downtime) raise(remaining, rate uint64) {
	d.step++
	if rate == 0 {
		return
	}
	need := time.Duration(math.Ceil(float64(remaining) / float64(rate) * float64(time.Second)))
	for need <= d.limit && d.step < downtimeSteps && d.now() < need {
		d.step++
	}
}
