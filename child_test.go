// Processes of this test program that do one thing, to be killed or frozen in it.

package vmdisk

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// childVariable holds, for such a process, what it is to do.
const childVariable = "VMDISK_TEST_CHILD"

// childTasks are what such a process can do, given what the task says.
func childTasks() map[string]func(t *testing.T, says []byte) {
	return map[string]func(*testing.T, []byte){
		"workflow": readAs(crash.happen),
		"moment":   readAs(moment.happen),
		"linking":  readAs(linking.happen),
		"boots":    readAs(booter.happen),
		"sleeper":  readAs(sleeper.happen),
	}
}

// readAs does a task that is described by a T.
func readAs[T any](do func(T, *testing.T)) func(*testing.T, []byte) {
	return func(t *testing.T, says []byte) {
		var what T
		must(t, json.Unmarshal(says, &what))
		do(what, t)
	}
}

type childTask struct {
	Do   string
	Says json.RawMessage
}

// child is a process that does a task, to be started.
func child(do string, what any) (*exec.Cmd, error) {
	says, err := json.Marshal(what)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(childTask{do, says})
	cmd := exec.Command(os.Args[0], "-test.run=^TestMainChild$", "-test.v")
	cmd.Env = append(os.Environ(), childVariable+"="+string(text), "VMDISK_LAB="+testLab.Dir)
	return cmd, err
}

// TestMainChild is such a process.
func TestMainChild(t *testing.T) {
	text := os.Getenv(childVariable)
	if text == "" {
		return
	}
	var task childTask
	must(t, json.Unmarshal([]byte(text), &task))
	childTasks()[task.Do](t, task.Says)
}

// dies waits for a process that is to end by SIGKILL.
func dies(cmd *exec.Cmd, err error) error {
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); !killed(err) {
		return fmt.Errorf("it was not killed: %w\n%s", err, out)
	}
	return nil
}

// killed says that a process ended by SIGKILL.
func killed(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// killSelf ends this process as kill -9 does.
func killSelf() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
