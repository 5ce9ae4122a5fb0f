package vmdisk

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/disk"
)

var errTest = errors.New("injected")

// script is a workflow of steps a, b, c that note what they do.
type script struct {
	log []string
}

func (s *script) step(name string, err error) step {
	return step{
		name: name,
		do: func(context.Context) error {
			s.log = append(s.log, "do "+name)
			return err
		},
		undo: func(ctx context.Context) error {
			s.log = append(s.log, "undo "+name)
			return ctx.Err()
		},
	}
}

func TestRunUndoes(t *testing.T) {
	timedOut := &disk.Error{Kind: disk.ErrTimeout}
	tests := []struct {
		name   string
		b      error // what step b returns
		commit bool  // b is the commit
		c      error
		want   []string
	}{
		{"all is well", nil, false, nil, []string{"do a", "do b", "do c"}},
		{"failed step is not undone", errTest, false, nil, []string{"do a", "do b", "undo a"}},
		{"unknown outcome is undone", timedOut, false, nil, []string{"do a", "do b", "undo b", "undo a"}},
		{"last first", nil, false, errTest, []string{"do a", "do b", "do c", "undo b", "undo a"}},
		{"nothing after the commit", nil, true, errTest, []string{"do a", "do b", "do c"}},
		{"a failed commit is none", errTest, true, nil, []string{"do a", "do b", "undo a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{}
			b := s.step("b", tt.b)
			b.commit = tt.commit
			err := newHost(Config{}).run(t.Context(), "op", "it", s.step("a", nil), b, s.step("c", tt.c))
			if want := errors.Join(tt.b, tt.c); (err == nil) != (want == nil) {
				t.Errorf("error is %v, want %v", err, want)
			}
			if diff := cmp.Diff(tt.want, s.log); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRunCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &script{}
	stop := s.step("b", nil)
	do := stop.do
	stop.do = func(ctx context.Context) error { cancel(); return do(ctx) }
	err := newHost(Config{}).run(ctx, "op", "it", s.step("a", nil), stop, s.step("c", nil))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	// The undoing must not see the cancelled context: undo returns its error.
	var e *Error
	if errors.As(err, &e) && len(e.Left) > 0 {
		t.Errorf("left behind: %v", e.Left)
	}
	if diff := cmp.Diff([]string{"do a", "do b", "undo b", "undo a"}, s.log); diff != "" {
		t.Error(diff)
	}
}

func TestRunNamesWhatIsLeft(t *testing.T) {
	s := &script{}
	stuck := s.step("clone", nil)
	stuck.detail = says("vms/x")
	stuck.undo = func(context.Context) error { return errTest }
	cause := &disk.Error{Object: "vms/x", Kind: disk.ErrNoSpace}
	var events []EventKind
	h := newHost(Config{Observe: func(e Event) { events = append(events, e.Kind) }})
	err := h.run(t.Context(), "boot", "web1", stuck, s.step("grow", cause))
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %T", err)
	}
	if !errors.Is(err, disk.ErrNoSpace) || e.Step != "grow" {
		t.Errorf("the cause is masked: %v", err)
	}
	if diff := cmp.Diff([]string{"clone vms/x: injected"}, e.Left); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]EventKind{Started, Done, Started, Failed, UndoFailed}, events); diff != "" {
		t.Error(diff)
	}
}
