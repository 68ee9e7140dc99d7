package conn

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"tideline/shared/limit"
)

var errPattern = errors.New("pattern not understood")

// CheckPattern answers nil, or why a pattern of channels can't be. It may have * and ** (anything), ? (one byte), [abc], [a-z] and [!abc], {one,other}
// (which may not be nested), and \ before a byte that is meant as it is. The empty pattern matches everything.
func CheckPattern(pattern string) error {
	_, err := glob(pattern)
	return err
}

// glob makes a regular expression of a pattern: matching takes time linear in the name, whatever the pattern.
func glob(pattern string) (*regexp.Regexp, error) {
	if pattern == "" {
		pattern = "*"
	}
	if len(pattern) > limit.ChannelBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errPattern, len(pattern), limit.ChannelBytes)
	}
	var b strings.Builder
	b.WriteString(`\A`)
	braces := false
	for rest := pattern; rest != ""; {
		c := rest[0]
		rest = rest[1:]
		switch {
		case c == '*':
			b.WriteString(`.*`)
		case c == '?':
			b.WriteByte('.')
		case c == '[':
			class, after, err := globClass(rest)
			if err != nil {
				return nil, err
			}
			b.WriteString(class)
			rest = after
		case c == '{' && !braces:
			braces = true
			b.WriteString(`(?:`)
		case c == '{':
			return nil, fmt.Errorf("%w: braces in braces", errPattern)
		case c == ',' && braces:
			b.WriteByte('|')
		case c == '}' && braces:
			braces = false
			b.WriteByte(')')
		case c == '}':
			return nil, fmt.Errorf("%w: } without {", errPattern)
		case c == '\\' && rest == "":
			return nil, fmt.Errorf("%w: \\ at the end", errPattern)
		case c == '\\':
			b.WriteString(regexp.QuoteMeta(rest[:1]))
			rest = rest[1:]
		default:
			b.WriteString(regexp.QuoteMeta(string([]byte{c})))
		}
	}
	if braces {
		return nil, fmt.Errorf("%w: { without }", errPattern)
	}
	b.WriteString(`\z`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fmt.Errorf("%w: not text", errPattern)
	}
	return re, nil
}

// globClass reads a class from after its bracket.
func globClass(s string) (class, rest string, err error) {
	inner, rest, ok := strings.Cut(s, "]")
	if !ok || inner == "" || inner == "!" {
		return "", "", fmt.Errorf("%w: [ without anything and ]", errPattern)
	}
	var b strings.Builder
	b.WriteByte('[')
	if inner[0] == '!' {
		b.WriteByte('^')
		inner = inner[1:]
	}
	for i := 0; i < len(inner); i++ {
		if i+2 < len(inner) && inner[i+1] == '-' {
			if inner[i] > inner[i+2] {
				return "", "", fmt.Errorf("%w: range %q", errPattern, inner[i:i+3])
			}
			fmt.Fprintf(&b, `\x%02x-\x%02x`, inner[i], inner[i+2])
			i += 2
			continue
		}
		fmt.Fprintf(&b, `\x%02x`, inner[i])
	}
	b.WriteByte(']')
	return b.String(), rest, nil
}
