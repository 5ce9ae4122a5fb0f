// Completing the [client] section of a ceph.conf, and nothing else in it.

package vmdisk

import (
	"regexp"
	"slices"
	"strings"
)

// clientSection is what all of a host's clients of Ceph are told, its guests above
// all.
const clientSection = "client"

// confOption is an option with the value that guests need.
type confOption struct {
	name, value string
	// local is set where another value is a choice and no mistake: a path.
	local bool
}

// clientOptions make a guest's write-back cache what cache='writeback' promises, and
// give each QEMU an admin socket and a log of its own. Source: the Ceph
// documentation for OpenStack; the cache policy is needed since Octopus.
func clientOptions() []confOption {
	return []confOption{
		{"rbd cache", "true", false},
		{"rbd cache writethrough until flush", "true", false},
		{"rbd cache policy", "writeback", false},
		{"admin socket", "/var/run/ceph/guests/$cluster-$type.$id.$pid.$cctid.asok", true},
		{"log file", "/var/log/qemu/qemu-guest-$pid.log", true},
		{"rbd concurrent management ops", "20", true},
	}
}

// confDifference is an option that has another value than the one that is wanted.
type confDifference struct{ name, has, wants string }

// completeConf adds to [client] the options that it lacks, and makes the section if
// there is none. Options with another value are returned, and with force replaced
// where they stand. All other text stays, byte for byte.
func completeConf(text string, options []confOption, force bool) (out string, added []string, differing []confDifference) {
	c := parseConf(text)
	var missing []confOption
	for _, o := range options {
		has, ok := c.options[confKey(o.name)]
		switch {
		case !ok:
			missing = append(missing, o)
			added = append(added, o.name)
		case !o.local && !sameValue(has.value, o.value):
			differing = append(differing, confDifference{o.name, has.value, o.value})
			if force {
				c.replace(has, o.value)
			}
		}
	}
	c.add(missing)
	return strings.Join(c.lines, ""), added, differing
}

// confKey is how Ceph compares names of options: spaces count as underscores, case
// counts, and a dash is another character.
func confKey(name string) string { return strings.Join(strings.Fields(name), "_") }

// sameValue compares values as Ceph reads them.
func sameValue(a, b string) bool {
	truth := map[string]string{"true": "true", "yes": "true", "on": "true", "1": "true",
		"false": "false", "no": "false", "off": "false", "0": "false"}
	if x, ok := truth[strings.ToLower(a)]; ok {
		return x == truth[strings.ToLower(b)]
	}
	return a == b
}

// confText is a ceph.conf in lines, each with its line end.
type confText struct {
	lines   []string
	options map[string]confValue // of [client], the last of each name
	end     int                  // where an option of [client] is added; -1: there is no such section
	indent  string               // of the last option in [client]
}

// confValue is an option's value and the lines that it stands on.
type confValue struct {
	value       string
	first, last int
}

var (
	confHeader = regexp.MustCompile(`^\s*\[([^\]]*)\]`)
	confLine   = regexp.MustCompile(`^(\s*)([^=#;\[]+?)\s*=\s*(.*?)\s*$`)
)

func parseConf(text string) *confText {
	c := &confText{lines: strings.SplitAfter(text, "\n"), options: map[string]confValue{}, end: -1}
	if k := len(c.lines) - 1; c.lines[k] == "" {
		c.lines = c.lines[:k]
	}
	inside := false
	for i := 0; i < len(c.lines); i++ {
		first, line := i, strings.TrimRight(c.lines[i], "\r\n")
		for strings.HasSuffix(line, `\`) && i+1 < len(c.lines) { // it goes on
			i++
			line = strings.TrimSuffix(line, `\`) + strings.TrimRight(c.lines[i], "\r\n")
		}
		if m := confHeader.FindStringSubmatch(line); m != nil {
			if inside = strings.TrimSpace(m[1]) == clientSection; inside {
				c.end, c.indent = i+1, ""
			}
			continue
		}
		m := confLine.FindStringSubmatch(line)
		if m == nil || !inside {
			continue
		}
		value, _ := cutComment(m[3])
		c.options[confKey(m[2])] = confValue{unquote(value), first, i}
		c.end, c.indent = i+1, m[1]
	}
	return c
}

// cutComment parts a value from the comment behind it.
func cutComment(s string) (value, comment string) {
	quote := rune(0)
	for i, r := range s {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && i == 0 && (r == '"' || r == '\''):
			quote = r
		case quote == 0 && (r == '#' || r == ';') && (i == 0 || s[i-1] != '\\'):
			value = strings.TrimRight(s[:i], " \t")
			return value, s[len(value):]
		}
	}
	return s, ""
}

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// replace gives an option a new value where it stands.
func (c *confText) replace(v confValue, value string) {
	before, rest, _ := strings.Cut(c.lines[v.first], "=")
	space := rest[:len(rest)-len(strings.TrimLeft(rest, " \t"))]
	_, comment := cutComment(strings.TrimSpace(rest))
	if v.last > v.first {
		comment = ""
	}
	c.lines[v.first] = before + "=" + space + value + comment + c.newline()
	for i := v.first + 1; i <= v.last; i++ {
		c.lines[i] = ""
	}
}

// add puts options behind the last of [client].
func (c *confText) add(options []confOption) {
	if len(options) == 0 {
		return
	}
	newline := c.newline()
	var lines []string
	if c.end < 0 {
		c.end = len(c.lines)
		if c.end > 0 {
			lines = append(lines, newline)
		}
		lines = append(lines, "["+clientSection+"]"+newline)
	}
	if c.end > 0 && !strings.HasSuffix(c.lines[c.end-1], "\n") {
		c.lines[c.end-1] += newline
	}
	for _, o := range options {
		lines = append(lines, c.indent+o.name+" = "+o.value+newline)
	}
	c.lines = slices.Insert(c.lines, c.end, lines...)
}

func (c *confText) newline() string {
	if len(c.lines) > 0 && strings.HasSuffix(c.lines[0], "\r\n") {
		return "\r\n"
	}
	return "\n"
}
