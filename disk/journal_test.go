package disk

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	outside "os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// operation is one whose leases are a machine's and a volume's, in two pools.
func operation(object string) *Operation {
	return &Operation{Pool: VMPool, Kind: "attach", Object: object,
		Leases: []string{VMPool + "/" + object, VolumePool + "/" + object}, Plan: json.RawMessage(`{}`)}
}

// journalIsEmpty fails the test if anything is in the journals.
func journalIsEmpty(t *testing.T, c *Cluster) {
	t.Helper()
	for _, pool := range []string{VMPool, VolumePool} {
		io, err := c.openPool(pool)
		if err != nil {
			t.Fatal(err)
		}
		has, err := readJournal(io, pool, "")
		io.Destroy()
		if err != nil || len(has) > 0 {
			t.Errorf("journal of %s holds %q, %v", pool, has, err)
		}
	}
}

func TestOperation(t *testing.T) {
	c, ctx := open(t), t.Context()
	o := operation("web1")
	if err := c.Begin(ctx, o); err != nil {
		t.Fatal(err)
	}
	for _, leases := range [][]string{{VMPool + "/web1"}, {VolumePool + "/web1"}, {VMPool + "/other", VolumePool + "/web1"}} {
		second := operation("web2")
		second.Leases = leases
		err := c.Begin(ctx, second)
		var e *Error
		if !errors.Is(err, ErrInUse) || !errors.As(err, &e) || len(e.Holders) != 1 ||
			!strings.Contains(e.Holders[0], fmt.Sprintf("attach web1 by pid %d on ", os.Getpid())) {
			t.Errorf("with leases %v: %v", leases, err)
		}
	}
	o.Step = "claim"
	if err := c.Advance(ctx, o); err != nil {
		t.Fatal(err)
	}
	all, err := c.Operations(ctx, VMPool)
	if err != nil || len(all) != 1 || all[0].Step != "claim" || all[0].Holder.PID != os.Getpid() || all[0].ID != o.ID {
		t.Errorf("operations are %+v, %v", all, err)
	}
	if err := c.End(ctx, o); err != nil {
		t.Fatal(err)
	}
	if err := c.End(ctx, o); err != nil {
		t.Errorf("ended twice: %v", err)
	}
	if err := c.Advance(ctx, o); !errors.Is(err, ErrTaken) {
		t.Errorf("advanced after the end: %v", err)
	}
	journalIsEmpty(t, c)
}

func TestOfManyOneGetsTheLease(t *testing.T) {
	c := open(t)
	var mu sync.Mutex
	var won []*Operation
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			o := operation("web1")
			err := c.Begin(t.Context(), o)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won = append(won, o)
			case !errors.Is(err, ErrInUse):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(won) != 1 {
		t.Errorf("%d have it", len(won))
	}
	for _, o := range won {
		if err := c.End(t.Context(), o); err != nil {
			t.Error(err)
		}
	}
	journalIsEmpty(t, c)
}

func TestTheLivingAreNotTakenOver(t *testing.T) {
	c, other := open(t), open(t)
	o := operation("web1")
	if err := c.Begin(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	found, err := other.Operation(t.Context(), VMPool, o.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.TakeOver(t.Context(), &found); !errors.Is(err, ErrInUse) {
		t.Errorf("taken over: %v", err)
	}
	if err := c.End(t.Context(), o); err != nil {
		t.Error(err)
	}
}

// holderVariable makes the test program a process that begins an operation, says
// so, and advances it for every line that it reads.
const holderVariable = "VMDISK_TEST_HOLDER"

func TestMainHolder(t *testing.T) {
	if os.Getenv(holderVariable) == "" {
		return
	}
	c := open(t)
	o := operation("web1")
	fmt.Println("begin:", c.Begin(t.Context(), o))
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println("advance:", c.Advance(t.Context(), o))
	}
}

// holder is another process with an operation.
type holder struct {
	cmd *outside.Cmd
	in  interface{ Write([]byte) (int, error) }
	out *bufio.Scanner
}

func startHolder(t *testing.T) *holder {
	t.Helper()
	h := &holder{cmd: outside.Command(os.Args[0], "-test.run=^TestMainHolder$")}
	h.cmd.Env = append(os.Environ(), holderVariable+"=1", "VMDISK_LAB="+testLab.Dir)
	h.cmd.Stderr = os.Stderr
	in, err := h.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.in, h.out = in, bufio.NewScanner(out)
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = h.cmd.Process.Kill()
		_ = h.cmd.Wait()
	})
	if line := h.line(); line != "begin: <nil>" {
		t.Fatal(line)
	}
	return h
}

func (h *holder) line() string {
	h.out.Scan()
	return h.out.Text()
}

// waitFor asks until the answer is yes.
func waitFor(t *testing.T, what string, yes func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for !yes() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within two minutes", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func takeOver(t *testing.T, c *Cluster) (*Operation, error) {
	t.Helper()
	all, err := c.Operations(t.Context(), VMPool)
	if err != nil || len(all) != 1 {
		t.Fatalf("operations are %+v, %v", all, err)
	}
	return &all[0], c.TakeOver(t.Context(), &all[0])
}

func TestTheDeadAreTakenOverAtOnce(t *testing.T) {
	h, c := startHolder(t), open(t)
	if _, err := takeOver(t, c); !errors.Is(err, ErrInUse) {
		t.Fatalf("taken over from the living: %v", err)
	}
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = h.cmd.Wait()
	o, err := takeOver(t, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.End(t.Context(), o); err != nil {
		t.Error(err)
	}
	journalIsEmpty(t, c)
}

// A process that sleeps through the life of its watch wakes up fenced.
func TestTheFrozenAreFencedWhenTheirWatchIsGone(t *testing.T) {
	h, c := startHolder(t), open(t)
	all, err := c.Operations(t.Context(), VMPool)
	if err != nil || len(all) != 1 {
		t.Fatalf("operations are %+v, %v", all, err)
	}
	fenced := all[0].Holder.Addr
	if err := h.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var o *Operation
	waitFor(t, "taken over", func() bool {
		var err error
		o, err = takeOver(t, c)
		if err != nil && !errors.Is(err, ErrInUse) {
			t.Fatal(err)
		}
		return err == nil
	})
	t.Cleanup(func() { unfence(t, fenced) })
	fences, err := c.Fences(t.Context())
	if err != nil || !slices.ContainsFunc(fences, func(f Fenced) bool { return f.Addr == fenced }) {
		t.Errorf("fences are %v, %v, without %s", fences, err, fenced)
	}
	if err := h.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(h.in); err != nil {
		t.Fatal(err)
	}
	if line := h.line(); !strings.HasPrefix(line, "advance: ") || !strings.HasSuffix(line, ErrFenced.Error()) {
		t.Errorf("the woken process says %q", line)
	}
	if err := c.End(t.Context(), o); err != nil {
		t.Error(err)
	}
	journalIsEmpty(t, c)
}

// unfence lifts a fence, which client.cinder may not.
func unfence(t *testing.T, addr string) {
	t.Helper()
	c, err := Open(context.WithoutCancel(t.Context()), Config{Conf: testLab.Conf, User: "admin"})
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	if err := c.Unfence(context.WithoutCancel(t.Context()), addr); err != nil {
		t.Error(err)
	}
}

func TestFenceRefusesWholeHosts(t *testing.T) {
	c := open(t)
	for _, addr := range []string{"", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:0/0", "127.0.0.0/8", "10.0.0.1/32"} {
		if err := c.Fence(t.Context(), addr, time.Hour); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", addr, err)
		}
	}
}
