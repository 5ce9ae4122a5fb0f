// Stalls: a migration in which nothing moves any more, and one that goes on and gets no
// nearer to its end.

package migrate

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// LeastPatience is how long a migration may stand still at the least: as long as Ceph
// takes to forget a client that is dead, which a destination may wait for.
const LeastPatience = 30 * time.Second

// pulse tells a migration that goes on from one that stands still.
type pulse struct {
	patience time.Duration
	seen     [3]uint64
	since    time.Time // nothing has changed
}

// newPulse begins to wait; for [LeastPatience], if patience is 0.
func newPulse(patience time.Duration) *pulse {
	if patience == 0 {
		patience = LeastPatience
	}
	return &pulse{patience: patience, since: time.Now()}
}

// stopped takes what libvirt says of the job now, or nil, and says whether nothing has
// moved for too long. How long it takes and what the guest writes changes always.
func (p *pulse) stopped(s *libvirt.DomainJobInfo) bool {
	if s != nil {
		if now := [...]uint64{s.DataTotal, s.DataProcessed, s.DataRemaining}; now != p.seen {
			p.seen, p.since = now, time.Now()
		}
	}
	return time.Since(p.since) > p.patience
}

// hangs is the error of one that cannot even be aborted.
func hangs(object string, patience time.Duration) error {
	return &domain.Error{Op: "abort", Object: object, Kind: domain.ErrTimeout,
		Reason: fmt.Sprintf("it is not over within %v after that", patience.Round(time.Millisecond))}
}

// nearing tells a migration that gets nearer to its end from one that does not. QEMU
// copies in passes, each what the guest has written during the one before, so the end
// comes nearer when a pass begins with less than any before: with a tenth less, or a
// guest that writes now a little more and now a little less could go on for ever.
// In a pass that does, all is well. So is it when the guest is slowed down further.
type nearing struct {
	pass     uint64
	most     uint64 // what remained at the begin of this pass
	least    uint64 // of all that came nearer
	nearer   bool   // this one does
	throttle int
	since    time.Time // it gets no nearer
}

func newNearing() *nearing { return &nearing{least: math.MaxUint64, since: time.Now()} }

// take takes what libvirt says of the job, and says whether a pass has begun that gets no
// nearer.
func (n *nearing) take(s *libvirt.DomainJobInfo) (stuck bool) {
	switch {
	case s.MemIteration != n.pass:
		n.pass, n.most = s.MemIteration, s.DataRemaining
		if n.nearer = n.most/9*10 <= n.least; n.nearer {
			n.least = n.most
		}
		stuck = !n.nearer
	case s.DataRemaining > n.most: // the pass has just begun
		n.most = s.DataRemaining
	}
	if n.nearer || s.AutoConvergeThrottle > n.throttle {
		n.throttle, n.since = max(n.throttle, s.AutoConvergeThrottle), time.Now()
	}
	return stuck
}

// again begins to wait anew, with what has been changed about the migration.
func (n *nearing) again() { n.least, n.since = math.MaxUint64, time.Now() }

// StallError is a migration that was aborted because its guest writes faster than its
// memory could be copied. It matches [ErrStalled]. Sizes are in bytes, rates in bytes a
// second.
type StallError struct {
	After                  time.Duration
	Timeout                bool // After is the policy's, for the whole
	Remaining, Dirty, Rate int64
	Policy                 Policy
}

// Error says how far it was, and why it got no further.
func (e *StallError) Error() string {
	what := "got no nearer to its end for " + e.After.Round(time.Second).String()
	if e.Timeout {
		what = "was not over after " + e.After.String()
	}
	return fmt.Sprintf("it %s, so it was aborted: %s remain, the guest writes %s, and %s are sent",
		what, strings.TrimSuffix(perSecond(e.Remaining), "/s"), perSecond(e.Dirty), perSecond(e.Rate))
}

// Unwrap is [ErrStalled].
func (e *StallError) Unwrap() error { return ErrStalled }

// Next says what would have brought it to an end.
func (e *StallError) Next() string {
	longer := max(e.Policy.downtime().limit, time.Second)
	if e.Rate > 0 {
		need := time.Duration(float64(e.Remaining)/float64(e.Rate)) * time.Second
		longer = max(longer, need+time.Second)
	}
	switch s := fmt.Sprintf("--downtime %v", longer.Round(time.Second)); e.Policy.onStall() {
	case StallPause:
		return s
	case StallPostcopy:
		return s + ", or --on-stall pause"
	default:
		return "--on-stall postcopy, --on-stall pause, or " + s
	}
}

// stalled is the error of a migration that stood still and was aborted, with libvirt's
// if that says more than this.
func stalled(why, err error) error {
	if errors.Is(err, libvirt.ERR_OPERATION_ABORTED) {
		return why
	}
	return fmt.Errorf("%w: %w", why, err)
}
