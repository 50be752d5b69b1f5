"""Runs a program in a pseudo-terminal and writes what it shows as an animated SVG.

usage: recording.py FILE.svg TITLE PROGRAM [ARGUMENT...]

The SVG is a filmstrip: one group per frame, moved through the visible area by a CSS animation.
Equal lines are stored once. It has its own background, so it is readable on a light and on a dark
page.
"""

import fcntl
import html
import os
import pty
import re
import select
import struct
import sys
import termios
import time

COLUMNS, ROWS = 120, 32
# Changes within this time become one frame.
FRAME_SECONDS = 0.12
# Played slower than it runs: a reader needs longer than the program.
SLOWDOWN = 2.0
LAST_FRAME_SECONDS = 8.0
DEADLINE_SECONDS = 300

CELL_WIDTH, LINE_HEIGHT, FONT_SIZE, MARGIN = 8.4, 18, 14, 16
BACKGROUND, FOREGROUND = "#0d1117", "#d1d7e0"
COLOURS = {31: "#ff7b72", 32: "#56d364", 33: "#e3b341", 36: "#56d4dd"}
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"

ESCAPE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")
PLAIN = ()


class Terminal:
    """The part of a terminal that line-oriented programs use: rows of (character, style)."""

    def __init__(self):
        self.rows = [[] for _ in range(ROWS)]
        self.row = self.column = 0
        self.style = PLAIN
        self.pending = ""

    def feed(self, text):
        text, self.pending = self.pending + text, ""
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                match = ESCAPE.match(text, at)
                if match:
                    self.escape(match[1], match[2])
                    at = match.end()
                    continue
                if len(text) - at < 16:
                    # The rest of the sequence is still to come.
                    self.pending = text[at:]
                    return
                raise ValueError(f"unsupported escape sequence: {text[at:at + 16]!r}")
            self.put(text[at])
            at += 1

    def put(self, character):
        if character == "\n":
            self.line_feed()
        elif character == "\r":
            self.column = 0
        elif character >= " ":
            if self.column == COLUMNS:
                self.column = 0
                self.line_feed()
            row = self.rows[self.row]
            row.extend([(" ", PLAIN)] * (self.column + 1 - len(row)))
            row[self.column] = (character, self.style)
            self.column += 1

    def line_feed(self):
        if self.row == ROWS - 1:
            self.rows = self.rows[1:] + [[]]
        else:
            self.row += 1

    def escape(self, arguments, command):
        number = int(arguments) if arguments.isdigit() else 0
        if command == "m":
            self.select_style([int(code or 0) for code in arguments.split(";")])
        elif command == "A":
            self.row = max(0, self.row - max(1, number))
        elif command == "B":
            self.row = min(ROWS - 1, self.row + max(1, number))
        elif command == "C":
            self.column = min(COLUMNS - 1, self.column + max(1, number))
        elif command == "D":
            self.column = max(0, self.column - max(1, number))
        elif command == "G":
            self.column = max(1, number) - 1
        elif command == "K":
            row = self.rows[self.row]
            self.rows[self.row] = [] if number == 2 else row[: self.column]
        elif command == "J":
            self.rows[self.row] = self.rows[self.row][: self.column]
            self.rows[self.row + 1 :] = [[] for _ in self.rows[self.row + 1 :]]
        elif command not in "hl":
            raise ValueError(f"unsupported escape sequence: ESC [ {arguments} {command}")

    def select_style(self, codes):
        style = set(self.style)
        for code in codes:
            if code == 0:
                style = set()
            elif code in COLOURS:
                style = {code} | (style & {1, 2})
            elif code in (1, 2):
                style.add(code)
        self.style = tuple(sorted(style))

    def picture(self):
        return tuple(trimmed(row) for row in self.rows)


def trimmed(row):
    cells = list(row)
    while cells and cells[-1][0] == " ":
        cells.pop()
    return tuple(cells)


def record(command):
    """The output of the program as [(seconds since its start, text)], and its exit code."""
    pid, terminal = pty.fork()
    if pid == 0:
        size = struct.pack("HHHH", ROWS, COLUMNS, 0, 0)
        fcntl.ioctl(sys.stdout.fileno(), termios.TIOCSWINSZ, size)
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        os.environ.pop("NO_COLOR", None)
        os.execvp(command[0], command)
    start, chunks, rest = time.monotonic(), [], b""
    while time.monotonic() - start < DEADLINE_SECONDS:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:
            # Linux reports the end of the program as EIO.
            data = b""
        if not data:
            break
        data = rest + data
        # A character can be split between two reads.
        text = data.decode("utf-8", "ignore")
        rest = data[len(text.encode()) :]
        chunks.append((time.monotonic() - start, text))
    else:
        os.kill(pid, 15)
    return chunks, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def frames(chunks, prompt):
    """The pictures of the terminal as [(seconds, picture)]."""
    terminal = Terminal()
    terminal.feed(f"\x1b[1m$\x1b[0m {prompt}\r\n")
    result = [(0.0, terminal.picture())]
    for index, (seconds, text) in enumerate(chunks):
        terminal.feed(text)
        is_last = index + 1 == len(chunks)
        following = seconds + FRAME_SECONDS if is_last else chunks[index + 1][0]
        # A frame ends on a grid of time, at the last output before the grid's line.
        if int(following / FRAME_SECONDS) > int(seconds / FRAME_SECONDS):
            picture = terminal.picture()
            if picture != result[-1][1]:
                result.append((seconds, picture))
    return result


def line_markup(cells):
    runs = []
    for character, style in cells:
        if runs and (runs[-1][1] == style or (character == " " and not runs[-1][1])):
            runs[-1][0] += character
        else:
            runs.append([character, style])
    return "".join(run_markup(text, style) for text, style in runs)


def run_markup(text, style):
    text = html.escape(text, quote=False)
    names = " ".join(f"s{code}" for code in style)
    return f'<tspan class="{names}">{text}</tspan>' if names else text


def svg(pictures, title):
    width = round(COLUMNS * CELL_WIDTH + 2 * MARGIN)
    height = ROWS * LINE_HEIGHT + 2 * MARGIN
    ends = [seconds * SLOWDOWN for seconds, _ in pictures[1:]]
    total = ends[-1] + LAST_FRAME_SECONDS
    starts = [0.0, *ends]

    lines, groups = {}, []
    for index, (_, picture) in enumerate(pictures):
        uses = []
        for row, cells in enumerate(picture):
            if cells:
                name = lines.setdefault(cells, f"l{len(lines)}")
                uses.append(f'<use href="#{name}" y="{row * LINE_HEIGHT}"/>')
        groups.append(f'<g transform="translate({index * width})">{"".join(uses)}</g>')
    # textLength keeps the columns aligned whatever font the reader has.
    definitions = [
        f'<text id="{name}" textLength="{len(cells) * CELL_WIDTH:.1f}" '
        f'lengthAdjust="spacingAndGlyphs">{line_markup(cells)}</text>'
        for cells, name in lines.items()
    ]
    keyframes = "".join(
        f"{100 * start / total:.3f}%{{transform:translateX({-index * width}px)}}"
        for index, start in enumerate(starts)
    )
    last = f"transform:translateX({-(len(pictures) - 1) * width}px)"
    colours = "".join(f".s{code}{{fill:{colour}}}" for code, colour in COLOURS.items())
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
width="{width}" height="{height}" role="img">
<title>{html.escape(title)}</title>
<style>
text{{font:{FONT_SIZE}px {FONTS};white-space:pre;fill:{FOREGROUND}}}
.s1{{font-weight:bold}}.s2{{opacity:.6}}{colours}
#film{{animation:film {total:.2f}s step-end infinite}}
@keyframes film{{{keyframes}100%{{{last}}}}}
@media (prefers-reduced-motion:reduce){{#film{{animation:none;{last}}}}}
</style>
<defs>
{chr(10).join(definitions)}
</defs>
<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>
<svg x="{MARGIN}" y="{MARGIN + FONT_SIZE}" width="{width - 2 * MARGIN}" height="{height - MARGIN}" \
overflow="visible">
<g id="film">
{chr(10).join(groups)}
</g>
</svg>
</svg>
"""


def main():
    path, title, *command = sys.argv[1:]
    chunks, code = record(command)
    if code != 0:
        output = "".join(text for _, text in chunks)
        sys.exit(f"recording: {command[0]} failed with exit code {code}:\n{output}")
    text = svg(frames(chunks, title), title)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    print(f"recording: {path}: {len(text.encode()) // 1024} KB, {chunks[-1][0]:.1f} s")


if __name__ == "__main__":
    main()
