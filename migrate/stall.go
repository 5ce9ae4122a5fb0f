// Stalls: a migration in which nothing moves any more.

package migrate

import (
	"errors"
	"fmt"
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

// stalled is the error of a migration that stood still and was aborted, with libvirt's
// if that says more than this.
func (p *pulse) stalled(err error) error {
	stalled := fmt.Errorf("%w for %v, so it was aborted", ErrStalled, p.patience.Round(time.Millisecond))
	if errors.Is(err, libvirt.ERR_OPERATION_ABORTED) {
		return stalled
	}
	return fmt.Errorf("%w: %w", stalled, err)
}

// hangs is the error of one that cannot even be aborted.
func hangs(object string, patience time.Duration) error {
	return &domain.Error{Op: "abort", Object: object, Kind: domain.ErrTimeout,
		Reason: fmt.Sprintf("it is not over within %v after that", patience.Round(time.Millisecond))}
}
