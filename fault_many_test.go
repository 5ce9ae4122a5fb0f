// Many at once: fifty boots of one image by several processes of which some are
// killed, and two commands on one machine.

package vmdisk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

const (
	booters  = 10 // processes
	boots    = 5  // of each
	unlucky  = 1  // processes that are killed
	bootSays = "booted "
)

// manyName and manyUUID are those of a machine of a process.
func manyName(process string, i int) string { return fmt.Sprintf("many-%s-%d", process, i) }

func manyUUID(name string) string { return uuid.NewSHA1(uuid.Nil, []byte(name)).String() }

// booter is one of the processes. It says each step, and each machine.
type booter string

func (b booter) happen(t *testing.T) {
	cfg := config(0)
	cfg.Observe = func(e Event) { fmt.Println("step", e.Object, e.Step) }
	h, err := Open(t.Context(), cfg)
	must(t, err)
	var all sync.WaitGroup
	for i := range boots {
		all.Go(func() {
			vm := manyName(string(b), i)
			_, err := h.Boot(t.Context(), vm, BootOptions{Image: "guest", UUID: manyUUID(vm), Memory: guestMemory, NoStart: true})
			if err != nil {
				fmt.Println("failed", err)
				return
			}
			fmt.Println(bootSays + vm)
		})
	}
	all.Wait()
	must(t, h.Close())
}

// runBooter runs one of the processes, and kills it when it has said so many lines,
// unless that is 0. It returns which machines it said that it has booted.
func runBooter(t *testing.T, name string, killAfter int) (booted []string) {
	cmd, err := child("boots", name)
	if err != nil {
		t.Error(err)
		return nil
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return nil
	}
	said := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if vm, ok := strings.CutPrefix(lines.Text(), bootSays); ok {
			booted = append(booted, vm)
		}
		if strings.HasPrefix(lines.Text(), "failed ") {
			t.Errorf("process %s: %s", name, lines.Text())
		}
		if said++; said == killAfter {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait() // it finds machines left, or was killed
	return booted
}

// Fifty boots of one image at once, by ten processes of which one is killed somewhere
// in the middle. A repair later exactly the machines are there that were booted, each
// with its disk, and of those that the dead process was at, each is whole or is not.
func TestManyBootsAtOnce(t *testing.T) {
	h := open(t, 0)
	unfenced(t)
	// What stays for good is there already, as the secret.
	_, err := h.Remove(t.Context(), bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true}).UUID)
	must(t, err)
	was := lines(t)
	var all []string
	t.Cleanup(func() { removeMany(t, h, all) })
	var mu sync.Mutex
	var processes sync.WaitGroup
	booted := map[string]bool{}
	for p := range booters {
		booter, killAfter := fmt.Sprint(p), 0
		for i := range boots {
			all = append(all, manyName(booter, i))
		}
		if p < unlucky {
			killAfter = 1 + rand.IntN(boots*6)
			t.Logf("process %s is killed after %d lines", booter, killAfter)
		}
		processes.Go(func() {
			for _, vm := range runBooter(t, booter, killAfter) {
				mu.Lock()
				booted[vm] = true
				mu.Unlock()
			}
		})
	}
	processes.Wait()
	repaired(t, h)
	now := lines(t)
	there := map[string]bool{} // by UUID
	for i, vm := range all {
		_, err := h.VM(t.Context(), vm)
		if err != nil && !errors.Is(err, domain.ErrNotFound) {
			t.Fatal(err)
		}
		there[manyUUID(vm)] = err == nil
		if err != nil && (booted[vm] || i >= unlucky*boots) {
			t.Errorf("%s was booted and is not there", vm)
		}
		has := now.about(manyUUID(vm))
		if want := len(now.about(manyUUID(all[len(all)-1]))); err == nil && len(has) != want || err != nil && len(has) > 0 {
			t.Errorf("of %s there is\n%s", vm, strings.Join(has, "\n"))
		}
		now = now.without(has)
	}
	if extra := now.without(was); len(extra) > 0 {
		t.Errorf("there is, too,\n%s", strings.Join(extra, "\n"))
	}
	t.Logf("%d said that they are booted", len(booted))
}

// about are the lines that name something.
func (s state) about(what string) (some state) {
	for _, line := range s {
		if strings.Contains(line, what) {
			some = append(some, line)
		}
	}
	return some
}

// removeMany removes those of some machines that are there.
func removeMany(t *testing.T, h *Host, all []string) {
	ctx := context.WithoutCancel(t.Context())
	var workers sync.WaitGroup
	queue := make(chan string)
	for range 8 {
		workers.Go(func() {
			for vm := range queue {
				if _, err := h.Remove(ctx, vm); err != nil && !errors.Is(err, domain.ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	for _, vm := range all {
		queue <- vm
	}
	close(queue)
	workers.Wait()
}

// Of two commands on one machine the second is told who is at work on it, since when
// and where, or waits for its end.
func TestSecondCommandIsTold(t *testing.T) {
	h := open(t, 0)
	vm, v := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true}), volume(t, h)
	t.Cleanup(func() { removeAnywhere(t, vm.UUID) })
	inside, goOn := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(release)
	h.fault = func(_, step string, when phase) error {
		if step == "attach" && when == before {
			close(inside)
			<-goOn
		}
		return nil
	}
	var first sync.WaitGroup
	first.Go(func() {
		if err := attachIt(t.Context(), h, vm, v); err != nil {
			t.Error(err)
		}
	})
	<-inside
	since := time.Now()
	_, err := open(t, 0).Start(t.Context(), vm.Name)
	var held *disk.HeldError
	if !errors.Is(err, disk.ErrInUse) || !errors.As(err, &held) || time.Since(since) > 10*time.Second {
		t.Fatalf("error is %v, after %v", err, time.Since(since))
	}
	refused(t, err, disk.ErrInUse, vm.Name, "--wait")
	who := held.Operation
	host, err := os.Hostname()
	must(t, err)
	if who.Kind != "attach" || who.Object != vm.Name || who.Holder.PID != os.Getpid() || who.Holder.Host != host || since.Sub(who.Started) > time.Minute {
		t.Errorf("it is held by %s", who.String())
	}
	cfg := config(0)
	cfg.Wait = true
	waits := make(chan struct{}, 1)
	cfg.Observe = func(e Event) {
		if e.Kind == Note && strings.HasPrefix(e.Detail, "waiting for attach "+vm.Name) {
			waits <- struct{}{}
		}
	}
	patient, err := Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, patient.Close()) })
	var second sync.WaitGroup
	second.Go(func() {
		if err := detachIt(t.Context(), patient, vm, v); err != nil {
			t.Error(err)
		}
	})
	<-waits
	release()
	first.Wait()
	second.Wait()
	h.fault = nil
}
