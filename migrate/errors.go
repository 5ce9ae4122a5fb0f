// The errors of this package.

package migrate

import (
	"errors"
	"fmt"
	"strings"
)

// What can be wrong.
var (
	// ErrSameHost is for a destination that is the source.
	ErrSameHost = errors.New("source and destination are the same host")
	// ErrUnsafe is for a machine that could lose data by the move.
	ErrUnsafe = errors.New("cannot be moved safely")
	// ErrUnfit is for a destination that could not run the machine.
	ErrUnfit = errors.New("destination is not fit")
	// ErrLost is for a machine that runs on neither host after the move failed.
	ErrLost = errors.New("runs on neither host")
	// ErrEnded is an [ErrLost] whose guest has powered off in the middle of it.
	ErrEnded = fmt.Errorf("its guest has powered off: %w", ErrLost)
	// ErrStalled is for a move in which nothing moved any more, or which got no nearer
	// to its end, which is a [*StallError].
	ErrStalled = errors.New("it stalled")
	// ErrInterrupted is for a move that was cut off in post-copy: its guest is on the
	// destination, and part of its memory on the source. It can be resumed.
	ErrInterrupted = errors.New("it was interrupted in post-copy: its guest is on the destination, part of its memory still on the source")
	// ErrAborted is for a move that somebody else than its caller has aborted.
	ErrAborted = errors.New("aborted")
	// ErrRunning is for a machine that is to be moved as one that is off.
	ErrRunning = errors.New("running")
	// ErrNone is for a machine that is not being moved.
	ErrNone = errors.New("no migration is under way")
	// ErrPostcopy is for a move that cannot be aborted any more: its guest runs on the
	// destination, and part of its memory is still on the source.
	ErrPostcopy = errors.New("cannot be aborted in post-copy")
	// ErrUnknown is for a move that failed while a host did not say whether it has
	// the machine.
	ErrUnknown = errors.New("where it runs is not known, ask both hosts")
)

// A CheckError is a preflight that found something. It matches what the checks
// that failed match.
type CheckError struct {
	Dest   string // the host's name
	Failed []Check
}

// Error lists what failed on one line.
func (e *CheckError) Error() string {
	var why []string
	for _, c := range e.Failed {
		why = append(why, c.Detail)
	}
	return e.Short() + ": " + strings.Join(why, "; ")
}

// Short is the error without what failed.
func (e *CheckError) Short() string { return e.Dest + " is not fit" }

// Unwrap makes the errors of the failed checks match.
func (e *CheckError) Unwrap() []error {
	var all []error
	for _, c := range e.Failed {
		all = append(all, c.Err)
	}
	return all
}
