// Forecast: what a migration will come to, from what the guest writes and what the
// hosts can send.

package migrate

import (
	"fmt"
	"time"

	"github.com/vmdisk/vmdisk/domain"
)

// Basis is where the bandwidth of a [Forecast] is from.
type Basis string

// The grounds of a forecast, the best first.
const (
	Measured Basis = "measured" // in the migration itself
	Given    Basis = "given"    // it is the limit asked for, and the hosts can do more
	Seen     Basis = "seen"     // between these hosts, in an earlier migration
	Assumed  Basis = "assumed"  // nothing is known of these hosts: 1 Gbit/s
)

// Link is what is known of the way between two hosts.
type Link struct {
	Rate int64 // bytes a second; 0 is that nothing is known
	// Overhead is what a migration takes besides its sending: the destination starts a
	// QEMU, the source ends one.
	Overhead time.Duration
	Basis    Basis
}

// Forecast is what is expected of a migration. Sizes are in bytes, rates in bytes a
// second.
type Forecast struct {
	Elapsed     time.Duration // 0 if it does not converge
	Downtime    time.Duration
	Transferred int64
	Passes      int // over memory, the first of which is over all of it
	// Converges is that the guest, with what the policy does to it from the start, comes
	// to write less in a pass than can be sent while it stands still.
	Converges bool
	// CallsFor is what would end one that does not converge; "" if it does.
	CallsFor Stall

	Memory    int64 // that can hold data
	Dirty     int64 // rate
	Bandwidth int64
	Basis     Basis // of Bandwidth
}

const (
	assumedRate     = 1e9 / 8                // 1 Gbit/s
	assumedOverhead = time.Second            // QEMU's start and end, and libvirt's
	slack           = 50 * time.Millisecond  // QEMU looks that often how much is left
	handover        = 50 * time.Millisecond  // the devices' state, and the disks
	mostPasses      = 100                    // a guest that needs more writes 95 % of what is sent
	defaultDowntime = 500 * time.Millisecond // Policy.Downtime
	firstThrottle   = 0.2                    // QEMU: cpu-throttle-initial …
	nextThrottle    = 0.1                    // … -increment
	mostThrottle    = 0.99                   // … and max-cpu-throttle
)

// Estimate is the forecast for a guest.
//
// QEMU sends memory at rate B while the guest writes D, and stops the guest once what
// is left can be sent within the downtime L. It learns what was written only when it
// has sent all but B·L of what it knew: a pass. The first takes t = (M − B·L) / B. In
// it D·t was written, which is what the second has to send, in t·r with r = D/B. So
//
//	t + t·r + t·r² + … = t / (1 − r) = (M − B·L) / (B − D)
//
// is the time until the guest is stopped, if r < 1, and B times that, and B·L, is what
// is sent. With r ≥ 1 it never is, unless all of M can be sent within the longest
// downtime allowed. The passes are added up
// here, and not the series, because they end when one writes less than QEMU notices,
// and because auto-converge makes r smaller from one to the next.
//
// What was measured is what a guest wrote within a second, and is taken to grow with
// the time. A guest that writes the same pages again and again writes less than that in
// a pass of several seconds, and converges earlier; in one of less than a second it
// writes more.
func Estimate(l domain.Load, link Link, p Policy) Forecast {
	f := Forecast{Memory: l.Memory, Dirty: l.Dirty, Bandwidth: link.Rate, Basis: link.Basis}
	overhead := link.Overhead
	if f.Bandwidth <= 0 {
		f.Bandwidth, f.Basis, overhead = assumedRate, Assumed, assumedOverhead
	}
	if 0 < p.Bandwidth && p.Bandwidth <= f.Bandwidth {
		f.Bandwidth, f.Basis = p.Bandwidth, Given
	}
	var (
		memory, rate, dirty = float64(l.Memory), float64(f.Bandwidth), float64(l.Dirty)
		stop                = p.firstDowntime().Seconds()
		pass                = max(memory/rate-stop, 0) // seconds
		last                = min(memory/rate, stop)
		throttle, sending   float64
	)
	for f.Passes = 1; ; f.Passes++ {
		sending += pass
		again := min(dirty*(1-throttle)*pass, memory) / rate
		switch {
		case again < slack.Seconds():
			f.Converges = true
		case p.Postcopy: // it stands still for what is no memory, and what is left follows
			f.Converges, last = true, 0
			sending += again
		case p.AutoConverge && f.Passes > 1 && throttle < mostThrottle && again > pass/2: // QEMU: throttle-trigger-threshold
			throttle = min(max(throttle+nextThrottle, firstThrottle), mostThrottle)
			pass = again
			continue
		case f.Passes < mostPasses && (again < pass || p.AutoConverge):
			pass = again
			continue
		}
		break
	}
	if all := memory / rate; !f.Converges && all <= p.longestDowntime().Seconds() {
		f.Converges, last = true, all // the downtime is raised until it is enough for all of it
	}
	f.Downtime = handover + seconds(last)
	if !f.Converges {
		f.Passes, f.CallsFor = 0, StallAutoConverge
		if 2*f.Bandwidth < f.Dirty { // it would be slowed to less than half
			f.CallsFor = StallPostcopy
		}
		return f
	}
	f.Elapsed = overhead + seconds(sending+last) + handover
	f.Transferred = int64((sending + last) * rate)
	return f
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// firstDowntime is the downtime that is tried first: a guest that converges needs no
// other.
func (p Policy) firstDowntime() time.Duration { return p.downtime().now() }

func (p Policy) longestDowntime() time.Duration {
	if p.Downtime > 0 {
		return p.Downtime
	}
	return defaultDowntime
}

// String is the forecast for a person, in half a line.
func (f Forecast) String() string {
	if !f.Converges {
		return fmt.Sprintf("does not converge: dirties %s at %s", perSecond(f.Dirty), perSecond(f.Bandwidth))
	}
	at := "converges at"
	if f.Basis == Assumed {
		at = "assuming"
	}
	return fmt.Sprintf("%.1f s, downtime about %d ms, %s %s", f.Elapsed.Seconds(),
		f.Downtime.Round(10*time.Millisecond).Milliseconds(), at, perSecond(f.Bandwidth))
}

// Advice is which policy one that does not converge calls for, for a person; "" if it
// does.
func (f Forecast) Advice() string {
	switch {
	case f.Converges:
		return ""
	case f.CallsFor == StallAutoConverge:
		return "it has to be slowed down, as it is unless --on-stall says otherwise"
	default:
		return "it has to be slowed down to less than half; better:  --on-stall " + string(f.CallsFor)
	}
}

func perSecond(rate int64) string {
	const mib = 1 << 20
	if rate < 10*mib {
		return fmt.Sprintf("%.1f MiB/s", float64(rate)/mib)
	}
	return fmt.Sprintf("%d MiB/s", (rate+mib/2)/mib)
}
