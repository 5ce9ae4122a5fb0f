// A guest that writes to its memory: at a rate, to a region, switched on and off
// while it runs.

package lab

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// DirtyMarker is what each page begins with that [Host.Dirty] has a guest write:
// to be looked for in what a host sends.
const DirtyMarker = "vmdisk-lab-dirty-page:"

const dirtySource = "dirty.c"

// Dirty has the lab's guest in a machine that runs on the host, and that has the
// guest agent's channel, write rate bytes a second to region bytes of its memory,
// page after page and over again. It replaces what an earlier call asked for, also
// one made on the host where the machine was before; a rate of 0 ends it. Every page
// begins with [DirtyMarker] and is otherwise random and new at each turn, so that
// neither zero pages nor XBZRLE nor compression make it cheap.
//
// It blocks until the whole region has been written once, and before that until the
// agent is there, which is once the guest has booted. It works during a migration.
// The region has to fit: a guest of 128 MiB has room for 48 MiB. What was written
// stays in the guest's memory when it ends.
//
// An emulated CPU can write some hundred MiB a second, less on a busy machine. A rate
// that is too high, such as 1 << 40, is as fast as it can: the CPU is never idle then,
// so that throttling it, as auto-converge does, slows the writing at once. The rate is
// that of bytes written: a region smaller than the rate is dirtied whole every second
// and no more. libvirt's own calculation of a dirty rate looks at 512 pages of a GiB,
// which of a guest of 128 MiB is 64: it is off by a third as a rule, and up to half.
func (h *Host) Dirty(ctx context.Context, domain string, rate, region int64) error {
	if rate < 0 || region < 0 {
		return fmt.Errorf("lab: a rate of %d B/s in a region of %d bytes cannot be", rate, region)
	}
	type execution struct {
		Path    string   `json:"path"`
		Args    []string `json:"arg"`
		Capture bool     `json:"capture-output"`
	}
	var started struct{ PID int }
	err := until(ctx, func() error {
		return h.agent(ctx, domain, "guest-exec", execution{"/sbin/dirty", []string{fmt.Sprint(rate), fmt.Sprint(region)}, true}, &started)
	})
	if err != nil {
		return fmt.Errorf("lab: %s: %w", domain, err)
	}
	err = until(ctx, func() error {
		var s struct {
			Exited   bool
			ExitCode int
			Err      string `json:"err-data"`
		}
		if err := h.agent(ctx, domain, "guest-exec-status", map[string]int{"pid": started.PID}, &s); err != nil {
			return err
		}
		switch said, _ := base64.StdEncoding.DecodeString(s.Err); {
		case !s.Exited:
			return errors.New("the guest has not yet written to all of the region")
		case s.ExitCode != 0:
			why := cmp.Or(strings.TrimSpace(string(said)), "it was killed, for lack of memory")
			return final(fmt.Errorf("the guest cannot write to %d MiB: %s", region>>20, why))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("lab: %s: %w", domain, err)
	}
	return nil
}

// agent asks the guest agent of a machine.
func (h *Host) agent(ctx context.Context, domain, command string, arguments, answer any) error {
	question, err := json.Marshal(map[string]any{"execute": command, "arguments": arguments})
	if err != nil {
		return err
	}
	out, err := h.virsh(ctx, "qemu-agent-command", "--timeout", "10", domain, string(question))
	if err != nil {
		if strings.Contains(err.Error(), "failed to get domain") {
			return final(err)
		}
		return err
	}
	return json.Unmarshal(out, &struct {
		Return any `json:"return"`
	}{answer})
}

// compileDirty compiles what writes in the guest, which has no libraries.
func compileDirty(ctx context.Context, path string) error {
	source := path + ".c"
	if err := os.WriteFile(source, guestFile(dirtySource), 0o644); err != nil {
		return err
	}
	_, err := run(ctx, "gcc", "-static", "-s", "-O2", "-Wall", "-Werror", fmt.Sprintf("-DMARKER=%q", DirtyMarker), "-o", path, source)
	return err
}
