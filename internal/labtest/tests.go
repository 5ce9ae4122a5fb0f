// What there is to run: the packages' test programs, and the tests in them.

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// program is the compiled tests of a package.
type program struct {
	pkg string // its import path
	dir string // its folder, in which its tests expect to run
	bin string
}

// test is one that has a process of its own.
type test struct {
	program
	name string
}

func (t test) String() string {
	if path := strings.SplitN(t.pkg, "/", 4); len(path) == 4 {
		return path[3] + "." + t.name
	}
	return t.name
}

// pattern is what -test.run needs to run it and nothing else.
func (t test) pattern() string {
	var all []string
	for part := range strings.SplitSeq(t.name, "/") {
		all = append(all, "^"+regexp.QuoteMeta(part)+"$")
	}
	return strings.Join(all, "/")
}

// build compiles the tests of packages into dir, with the race detector.
func build(ctx context.Context, dir string, packages []string) ([]program, error) {
	const withTests = "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}"
	lines, err := output(ctx, nil, "go", append([]string{"list", "-f", withTests}, packages...)...)
	if err != nil {
		return nil, err
	}
	var all []program
	for i, line := range lines {
		pkg, folder, _ := strings.Cut(line, " ")
		p := program{pkg, folder, filepath.Join(dir, fmt.Sprint(i))}
		if _, err := output(ctx, nil, "go", "test", "-c", "-race", "-vet=off", "-o", p.bin, pkg); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// list asks the programs for their tests. One that names parts of a test is to have
// these run in its place. They come first, as those tests are the longest.
func list(ctx context.Context, programs []program, env []string) ([]test, error) {
	var parts, whole []test
	for _, p := range programs {
		names, err := output(ctx, &execution{p.dir, env}, p.bin, "-test.list", "^(Test|Example|Fuzz)")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			switch {
			case strings.Contains(name, "/"):
				parts = append(parts, test{p, name})
			case !slices.ContainsFunc(names, func(s string) bool { return strings.HasPrefix(s, name+"/") }):
				whole = append(whole, test{p, name})
			}
		}
	}
	return append(parts, whole...), nil
}

// execution is where and with what a program runs, if not as this one does.
type execution struct {
	dir string
	env []string
}

// output runs a program and returns the lines of its standard output.
func output(ctx context.Context, x *execution, name string, args ...string) ([]string, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Stderr = os.Stderr
	if x != nil {
		c.Dir, c.Env = x.dir, x.env
	}
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' }), nil
}
