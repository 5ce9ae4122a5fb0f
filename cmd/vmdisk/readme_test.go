// The README's chapter "Moving off local disks", typed as it stands.

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// chapter returns the command lines of a chapter of the README: the lines of its code
// blocks, those of a here-document and of a loop as one.
func chapter(t *testing.T, title string) []string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(readme), "\n### "+title+"\n")
	if !found {
		t.Fatalf("the README has no chapter %q", title)
	}
	text, _, _ = strings.Cut(text, "\n### ")
	here := regexp.MustCompile(`<<(\w+)$`)
	var lines []string
	until := ""
	for line := range strings.Lines(text) {
		line, code := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
		switch {
		case !code:
		case until != "":
			lines[len(lines)-1] += "\n" + line
			if line == until {
				until = ""
			}
		default:
			lines = append(lines, line)
			if m := here.FindStringSubmatch(line); m != nil {
				until = m[1]
			} else if strings.HasSuffix(line, "; do") {
				until = "done"
			}
		}
	}
	return lines
}

// shell is one that somebody types into.
type shell struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Scanner
}

// newShell starts a shell in an empty folder, whose vmdisk is that of this source.
func newShell(t *testing.T) *shell {
	t.Helper()
	bin, dir := t.TempDir(), t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(bin, "vmdisk"), ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	cmd := exec.CommandContext(ctx, "bash")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "PWD="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
		cancel()
	})
	return &shell{t, in, bufio.NewScanner(out)}
}

// types types a line, which must succeed, and returns what that prints.
func (s *shell) types(line string) string {
	s.t.Helper()
	const mark = "exit code is "
	if _, err := fmt.Fprintf(s.in, "%s\necho \"%s$?\"\n", line, mark); err != nil {
		s.t.Fatal(err)
	}
	var said strings.Builder
	for s.out.Scan() {
		code, end := strings.CutPrefix(s.out.Text(), mark)
		switch {
		case end && code == "0":
			return said.String()
		case end:
			s.t.Fatalf("%s\nexit code %s: %s", line, code, &said)
		}
		fmt.Fprintln(&said, s.out.Text())
	}
	s.t.Fatalf("%s\nthe shell has ended: %v: %s", line, s.out.Err(), &said)
	return ""
}

// Every line works from top to bottom, and does what is said of it.
func TestReadmeMovingOffLocalDisks(t *testing.T) {
	s := newShell(t)
	atEnd(t, "image", "rm", "debian")
	atEnd(t, "rm", "web1", "web2", "web3") // if it ends in the middle
	// Where the disk is, for QEMU and for the next start: after is what commands must say
	// when a line was typed.
	disks := "virsh domblklist web1 --details && virsh domblklist web1 --details --inactive"
	both := func(source string) string { return `(?s)^.*` + source + `\n.*` + source + `\n\s*$` }
	file, image := `file +disk +vda +\S+/instances/[0-9a-f-]{36}/`, both(`network +disk +vda +vms/[0-9a-f-]{36}_disk`)
	images, files, state := "rbd ls vms | grep $ID || echo none", "ls instances/$ID", "virsh domstate web1"
	type check struct{ typed, says string }
	after := map[string][]check{
		"virsh start web1":                  {{disks, both(file + "disk")}},
		"vmdisk adopt web1 --dry-run":       {{disks, both(file + "disk")}, {images, "none"}},
		"vmdisk adopt web1":                 {{disks, image}, {state, "running"}, {files, `^disk\n$`}},
		"vmdisk adopt web1 --undo":          {{disks, both(file + "disk")}, {state, "running"}, {images, "none"}},
		"vmdisk adopt web1 --remove-source": {{disks, image}, {files, `^$`}},
		"vmdisk eject web1 --to instances":  {{disks, both(file + `\S+_disk.qcow2`)}, {images, "none"}, {state, "running"}},
		"vmdisk rm web1":                    {{"vmdisk ls", "no machines"}, {files, `^\S+_disk.qcow2\n$`}},

		"vmdisk adopt --nova-instances instances --dry-run": {{"virsh domblklist web2 --details", file + "disk"}, {images, "none"}},
		"vmdisk adopt --nova-instances instances --jobs 2": {
			{strings.ReplaceAll(disks, "web1", "web2"), image},
			{strings.ReplaceAll(disks, "web1", "web3"), image},
			{"vmdisk disk info $(virsh domuuid web3)", "images/debian@snap"},
		},
		"vmdisk rm web2 web3 && vmdisk image rm debian": {{"vmdisk ls", "no machines"}, {"rbd ls images | grep debian || echo none", "none"}, {"rbd ls vms", `^$`}},
	}
	seen := map[string]bool{}
	for _, line := range chapter(t, "Moving off local disks") {
		t.Logf("$ %s\n%s", line, s.types(line))
		words, _, _ := strings.Cut(line, " #")
		for what, checks := range after {
			if words = strings.TrimSpace(words); words != what && !strings.HasPrefix(words, what+"/") {
				continue
			}
			seen[what] = true
			for _, check := range checks {
				if got := s.types(check.typed); !regexp.MustCompile(check.says).MatchString(got) {
					t.Errorf("after %s, %s says %s, not %s", line, check.typed, got, check.says)
				}
			}
		}
	}
	for what := range after {
		if !seen[what] {
			t.Errorf("the chapter does not have %q", what)
		}
	}
}
