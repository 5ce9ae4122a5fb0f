// What changes between two texts, as diff -u shows it.

package main

import (
	"fmt"
	"strings"
)

// around is how many lines are shown around a change.
const around = 3

// unifiedDiff is "" for texts that are the same. They may have some thousand lines.
func unifiedDiff(before, after string) string {
	lines := editScript(strings.Split(before, "\n"), strings.Split(after, "\n"))
	var b strings.Builder
	old, now, shown := 1, 1, -1 // line numbers, and up to which edit is shown
	for i, e := range lines {
		if e[0] != ' ' && i > shown {
			from, to := max(i-around, shown+1), hunkEnd(lines, i)
			var was, is int
			for _, l := range lines[from:to] {
				if l[0] != '+' {
					was++
				}
				if l[0] != '-' {
					is++
				}
			}
			fmt.Fprintf(&b, "@@ -%d,%d +%d,%d @@\n", old-(i-from), was, now-(i-from), is)
			b.WriteString(strings.Join(lines[from:to], "\n") + "\n")
			shown = to - 1
		}
		if e[0] != '+' {
			old++
		}
		if e[0] != '-' {
			now++
		}
	}
	return b.String()
}

// hunkEnd is behind the last line that is shown with the change at i.
func hunkEnd(lines []string, i int) int {
	last := i
	for k := i; k < len(lines) && k <= last+2*around; k++ {
		if lines[k][0] != ' ' {
			last = k
		}
	}
	return min(last+1+around, len(lines))
}

// editScript is all lines of both, each with ' ', '-' or '+' in front: a longest common
// subsequence stays.
func editScript(a, b []string) []string {
	length := make([][]int, len(a)+1)
	for i := range length {
		length[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for k := len(b) - 1; k >= 0; k-- {
			if a[i] == b[k] {
				length[i][k] = length[i+1][k+1] + 1
			} else {
				length[i][k] = max(length[i+1][k], length[i][k+1])
			}
		}
	}
	var all []string
	i, k := 0, 0
	for i < len(a) || k < len(b) {
		switch {
		case i < len(a) && k < len(b) && a[i] == b[k]:
			all = append(all, " "+a[i])
			i, k = i+1, k+1
		case k == len(b) || i < len(a) && length[i+1][k] >= length[i][k+1]:
			all = append(all, "-"+a[i])
			i++
		default:
			all = append(all, "+"+b[k])
			k++
		}
	}
	return all
}
