// Checks: the questions of a preflight, with their answers and what cures them.

package migrate

import (
	"context"
	"fmt"
)

// Check is one question of the preflight and its answer.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Warning says that the machine may move, but that somebody should know something
	// before, or that the question could not be asked.
	Warning bool   `json:"warning,omitempty"`
	Detail  string `json:"detail"`
	Cure    string `json:"fix,omitempty"` // what to type, and on which host
	Err     error  `json:"-"`             // nil if OK; matches a sentinel of this package or of domain

	mend func(context.Context) error // does what Cure says; nil if vmdisk cannot
	done string                      // what it has done then
}

// Verdict is a word for the answer: "ok", "warn" or "NO".
func (c Check) Verdict() string {
	switch {
	case !c.OK:
		return "NO"
	case c.Warning:
		return "warn"
	}
	return "ok"
}

func pass(name, format string, args ...any) Check {
	return Check{Name: name, OK: true, Detail: fmt.Sprintf(format, args...)}
}

func warn(name, format string, args ...any) Check {
	return Check{Name: name, OK: true, Warning: true, Detail: fmt.Sprintf(format, args...)}
}

func fail(name string, kind error, format string, args ...any) Check {
	return Check{Name: name, Detail: fmt.Sprintf(format, args...), Err: kind}
}

// on says what to type on a host to get another answer.
func (c Check) on(host, format string, args ...any) Check {
	c.Cure = "on " + host + ":  " + fmt.Sprintf(format, args...)
	return c
}

// by says how vmdisk itself does that.
func (c Check) by(done string, mend func(context.Context) error) Check {
	c.done, c.mend = done, mend
	return c
}
