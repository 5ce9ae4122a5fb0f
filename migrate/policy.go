// Policy: how a guest's memory is copied, and what is done about a guest that writes
// it faster than that.

package migrate

import "time"

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
	// Bandwidth is the most that is sent, in bytes a second; 0 is no limit.
	Bandwidth int64
	// Timeout is how long the whole may take before it is aborted; 0 is no limit, for
	// a guest whose migration gets nearer to its end.
	Timeout time.Duration
	// StallAfter is how long a migration may get no nearer to its end before OnStall is
	// done; 0 is a default that grows with the guest's memory.
	StallAfter time.Duration
	OnStall    Stall // "" is StallAutoConverge

	AutoConverge bool // slow the guest down from the start, if it takes that
	Postcopy     bool // switch to post-copy after the first pass
	Parallel     int  // connections; 0 is one
	Compress     bool // send what changed in a page and not the page (XBZRLE)
	TLS          bool // encrypt the memory on its way
}
