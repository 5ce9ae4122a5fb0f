// Progress on a terminal: a running step is a spinner or a bar and turns into
// its result.

package main

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

type live struct {
	container *mpb.Progress
	bars      map[barKey]*bar
	several   atomic.Bool // machines are worked on at once: each bar says whose it is
	once      sync.Once
}

type barKey struct{ object, step string }

// bar is a running step. The container's goroutine reads what the workflow's
// writes.
type bar struct {
	mu    sync.Mutex
	last  vmdisk.Event
	begin time.Time
	drawn *mpb.Bar
	bytes bool // it is a bar and not a spinner
}

func newLive(w io.Writer) *live {
	return &live{
		container: mpb.New(mpb.WithOutput(w), mpb.WithWidth(22), mpb.WithAutoRefresh(), mpb.WithRefreshRate(80*time.Millisecond)),
		bars:      map[barKey]*bar{},
	}
}

// close takes bars that are still there away and waits for the last drawing.
func (l *live) close() {
	l.once.Do(func() {
		for key := range l.bars {
			l.drop(key)
		}
		l.container.Wait()
	})
}

func (l *live) show(e vmdisk.Event) {
	key := barKey{e.Object, e.Step}
	switch e.Kind {
	case vmdisk.Started:
		l.start(key, e)
	case vmdisk.Progress:
		l.progress(key, e)
	default:
		l.drop(key)
		if line := stepLine(e); line != "" {
			fmt.Fprintln(l.container, line)
		}
	}
}

func (l *live) start(key barKey, e vmdisk.Event) {
	for other := range l.bars {
		if other.object != key.object {
			l.several.Store(true)
		}
	}
	b := &bar{last: e, begin: time.Now()}
	b.drawn = l.container.New(0, mpb.SpinnerStyle().PositionLeft(), mpb.BarWidth(1),
		mpb.PrependDecorators(l.heading(b)),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + e.Detail })))
	l.bars[key] = b
}

// progress turns the spinner into a bar with the first figures.
func (l *live) progress(key barKey, e vmdisk.Event) {
	b := l.bars[key]
	if b == nil || e.Total == 0 {
		return
	}
	if !b.bytes {
		l.drop(key)
		b = &bar{begin: b.begin, last: e, bytes: true}
		b.drawn = l.container.New(e.Total, mpb.BarStyle().Lbound("").Filler("█").Tip("█").Padding("░").Rbound(""),
			mpb.PrependDecorators(l.heading(b)),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return b.figures() })))
		l.bars[key] = b
	}
	b.mu.Lock()
	b.last = e
	b.mu.Unlock()
	b.drawn.SetTotal(e.Total, false)
	b.drawn.SetCurrent(min(e.Bytes, e.Total-1)) // a full bar would end before the step does
}

// heading is what a bar is of: the step, or, if there are bars of several, whose.
func (l *live) heading(b *bar) decor.Decorator {
	return decor.Any(func(decor.Statistics) string {
		b.mu.Lock()
		defer b.mu.Unlock()
		step := phaseOf(b.last)
		if !l.several.Load() {
			return fmt.Sprintf("%-8s", step)
		}
		object := []rune(b.last.Object)
		if len(object) > 11 {
			object = append(object[:10], '…')
		}
		return fmt.Sprintf("%-11s %-8s", string(object), step)
	})
}

// figures are "81 %  208 MiB of 256 MiB  112 MiB/s  0.4 s left".
func (b *bar) figures() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.last
	if e.Total == 0 {
		return ""
	}
	if e.Migration != nil {
		return migrationLine(e)
	}
	rate := e.Rate
	if seconds := time.Since(b.begin).Seconds(); rate == 0 && seconds > 0 {
		rate = int64(float64(e.Bytes) / seconds)
	}
	s := fmt.Sprintf(" %3d %%  %s of %s", 100*e.Bytes/e.Total, disk.FormatSize(e.Bytes), disk.FormatSize(e.Total))
	if rate > 0 {
		left := time.Duration(float64(e.Total-e.Bytes) / float64(rate) * float64(time.Second))
		s += fmt.Sprintf("  %s/s  %s left", disk.FormatSize(rate), duration(left))
	}
	return s
}

func (l *live) drop(key barKey) {
	if b := l.bars[key]; b != nil {
		b.drawn.Abort(true)
		delete(l.bars, key)
	}
}
