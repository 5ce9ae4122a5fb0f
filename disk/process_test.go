package disk

import (
	"fmt"
	osexec "os/exec"
	"strings"
	"testing"
)

// A process whose first thread has ended is a zombie to ps, and still writes.
func TestDeadWithItsLastThread(t *testing.T) {
	cmd := osexec.Command("python3", "-c", `
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
ctypes.CDLL(None).pthread_exit(None)`)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := Process{PID: cmd.Process.Pid}
	p.Boot, p.Namespace = surroundings()
	if p.Ticks, err = startOf(p.PID); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "its first thread to end", func() bool {
		out, err := osexec.Command("ps", "-o", "state=", "-p", fmt.Sprint(p.PID)).Output()
		return err == nil && strings.TrimSpace(string(out)) == "Z"
	})
	if p.Dead() {
		t.Error("it is taken for dead, though a thread of it lives")
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it to be dead", p.Dead)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
