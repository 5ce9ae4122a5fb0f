// What an embedder can watch while a workflow runs.

package vmdisk

import (
	"time"

	"github.com/vmdisk/vmdisk/migrate"
)

// EventKind says what an [Event] tells.
type EventKind int

// The kinds of events. A step gives Started, any number of Progress, and then
// Done or Failed; after a failure the steps before it give Undone or UndoFailed.
const (
	Started EventKind = iota
	Progress
	Done
	Failed
	Undone
	UndoFailed
	Note    // something to know
	Warning // something to know that the caller may not expect
)

// Event is something that happened in a workflow.
type Event struct {
	Kind    EventKind
	Op      string // the workflow: "boot"
	Object  string // what it is about: the VM's name
	Step    string // "clone"
	Detail  string // what the step works on or came to, for people
	Bytes   int64  // Progress: so much is done …
	Total   int64  // … of this, or 0 where that is unknown
	Rate    int64  // Progress: bytes a second, or 0
	Elapsed time.Duration
	// Migration is how far one is, with what of it the fields above do not say;
	// nil for all else.
	Migration *migrate.Progress
	Err       error // Failed, UndoFailed
}

func (h *Host) emit(e Event) {
	if h.cfg.Observe != nil {
		h.cfg.Observe(e)
	}
}

// progress tells bytes as events.
func (h *Host) progress(op, object, step string) func(done, total int64) {
	begin := time.Now()
	return func(done, total int64) {
		h.emit(Event{Kind: Progress, Op: op, Object: object, Step: step, Bytes: done, Total: total, Elapsed: time.Since(begin)})
	}
}

// shows tells as bytes how far a step is that counts the objects of an image of size
// bytes: they are of one size but the last.
func (h *Host) shows(op, object, step string, size int64) func(done, total int64) {
	show := h.progress(op, object, step)
	return func(done, total int64) {
		if total > 0 {
			show(int64(float64(size)*float64(done)/float64(total)), size)
		}
	}
}
