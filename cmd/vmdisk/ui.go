// What is printed where: results on standard output, as text or JSON; steps,
// progress and messages on standard error.

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/vmdisk/vmdisk"
	"golang.org/x/term"
)

// ui is decided once, from flags and from what the streams are.
type ui struct {
	out   io.Writer
	err   io.Writer
	json  bool
	short bool // abbreviate UUIDs: a person reads
	told  plainMigrations
	all   bool   // a program reads every event
	mode  string // of progress
	main  string // a workflow of workflows: of those, a person sees only how far they are
	part  string // as this step of it
	mu    sync.Mutex
	show  func(vmdisk.Event)
	close func()
}

func newUI(out, err io.Writer, output, progress string) *ui {
	u := &ui{out: out, err: err, json: output == "json", told: plainMigrations{}, close: func() {}}
	if progress == "auto" {
		progress = "plain"
		if terminal(err) {
			progress = "live"
		}
	}
	u.mode = progress
	u.begin()
	return u
}

// begin shows what happens from now on; also anew, after a result that is not the end.
func (u *ui) begin() {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch u.mode {
	case "live":
		l := newLive(u.err)
		u.short, u.show, u.close = true, l.show, l.close
	case "plain":
		u.show = u.plain
	case "json":
		u.show = u.jsonLine
		u.all = true
	case "none":
		u.show = u.warnings
	}
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// observe is told what happens by workflows that may run at the same time.
func (u *ui) observe(e vmdisk.Event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.short {
		e.Detail, e.Object = abbreviate(e.Detail), abbreviate(e.Object)
	}
	if u.main != "" && !u.all && !u.ofMain(&e) {
		return
	}
	u.show(e)
}

// ofMain says whether an event is to be shown when a workflow has others under it. How
// far one of those is, is shown as a step of it.
func (u *ui) ofMain(e *vmdisk.Event) bool {
	switch {
	case e.Op == u.main, e.Kind == vmdisk.Warning, e.Kind == vmdisk.UndoFailed:
		return true
	case e.Kind == vmdisk.Progress:
		e.Step = u.part
		return true
	}
	return false
}

// plain prints each step when it is over, and now and then how far one is that takes
// longer.
func (u *ui) plain(e vmdisk.Event) {
	if e.Kind == vmdisk.Progress && u.told.due(e) {
		fmt.Fprintf(u.err, "%-9s%s  %s\n", phaseOf(e), migrationLine(e), e.Object)
	}
	if line := stepLine(e); line != "" {
		fmt.Fprintln(u.err, line)
	}
}

func (u *ui) warnings(e vmdisk.Event) {
	if e.Kind == vmdisk.Warning || e.Kind == vmdisk.UndoFailed {
		u.plain(e)
	}
}

var kindNames = map[vmdisk.EventKind]string{
	vmdisk.Started: "started", vmdisk.Progress: "progress", vmdisk.Done: "done", vmdisk.Failed: "failed",
	vmdisk.Undone: "undone", vmdisk.UndoFailed: "undo-failed", vmdisk.Note: "note", vmdisk.Warning: "warning",
}

// jsonLine prints an event as an object on a line.
func (u *ui) jsonLine(e vmdisk.Event) {
	line := struct {
		Event   string `json:"event"`
		Op      string `json:"op"`
		Object  string `json:"object"`
		Step    string `json:"step,omitempty"`
		Detail  string `json:"detail,omitempty"`
		Bytes   int64  `json:"bytes,omitempty"`
		Total   int64  `json:"total,omitempty"`
		Rate    int64  `json:"rate,omitempty"`
		Elapsed int64  `json:"elapsed_ms"`
		Error   string `json:"error,omitempty"`

		Migration *migrationFigures `json:"migration,omitempty"`
	}{kindNames[e.Kind], e.Op, e.Object, e.Step, e.Detail, e.Bytes, e.Total, e.Rate, e.Elapsed.Milliseconds(), "", figuresOf(e.Migration)}
	if line.Migration != nil {
		line.Migration.Percent = percentOf(e)
	}
	if e.Err != nil {
		line.Error = e.Err.Error()
	}
	_ = json.NewEncoder(u.err).Encode(line)
}

// stepLine is what a finished step looks like; "" for an event that is none.
func stepLine(e vmdisk.Event) string {
	switch e.Kind {
	case vmdisk.Done:
		return fmt.Sprintf("%-8s %-53s %s", e.Step, e.Detail, duration(e.Elapsed))
	case vmdisk.Failed:
		return fmt.Sprintf("%-8s %-53s failed", e.Step, e.Detail)
	case vmdisk.Undone:
		return fmt.Sprintf("%-8s %-53s undone", e.Step, e.Detail)
	case vmdisk.UndoFailed:
		return fmt.Sprintf("%-8s %s could not be undone: %v", e.Step, e.Detail, e.Err)
	case vmdisk.Note:
		return fmt.Sprintf("%-8s %s", e.Step, e.Detail)
	case vmdisk.Warning:
		return "warning  " + e.Detail
	}
	return ""
}

func duration(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%4d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%4.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

var uuidForm = regexp.MustCompile(`\b([0-9a-f]{4})[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{8}([0-9a-f]{4})`)

// abbreviate shortens UUIDs to their ends, as 0562…6660.
func abbreviate(s string) string { return uuidForm.ReplaceAllString(s, "$1…$2") }

// result prints what a command came to: value as JSON, or the text.
func (u *ui) result(value any, format string, args ...any) error {
	u.close()
	if u.json {
		return u.encode(value)
	}
	if format == "" {
		return nil
	}
	_, err := fmt.Fprintf(u.out, format+"\n", args...)
	return err
}

// text prints a line of a result that has several; JSON has them in one value.
func (u *ui) text(line any) error {
	u.close()
	if u.json {
		return nil
	}
	_, err := fmt.Fprintln(u.out, line)
	return err
}

func (u *ui) encode(value any) error {
	e := json.NewEncoder(u.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(value)
}

// table prints value as JSON, or the rows under a heading, aligned. With no rows
// it says so on standard error, as kubectl does.
func (u *ui) table(value any, none, heading string, rows []string) error {
	u.close()
	if u.json {
		return u.encode(value)
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(u.err, none)
		return err
	}
	t := tabwriter.NewWriter(u.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, heading)
	for _, row := range rows {
		fmt.Fprintln(t, row)
	}
	return t.Flush()
}
