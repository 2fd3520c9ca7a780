# SPDX-License-Identifier: MIT
# From what examples/leaky prints, with the collector and then without, to numbers and the picture; see bench/pressure.

# 1234567 as 1,234,567.
function commas(number, behind) {
  for (behind = ""; length(number) > 3; number = substr(number, 1, length(number) - 3)) behind = "," substr(number, length(number) - 2) behind
  return number behind
}

# The least of 1, 2, 5, 10, ... of which at most six make `all`.
function step(all, power) {
  for (power = 1; ; power *= 10) {
    if (power * 6 >= all) return power
    if (power * 12 >= all) return 2 * power
    if (power * 30 >= all) return 5 * power
  }
}

function text(x, y, what, more) { printf "<text x=\"%.0f\" y=\"%.0f\"%s>%s</text>\n", x, y, more, what >svg }

# The axes of a panel whose upper edge is at `top`, with lines across.
function axes(title, requests, mib, each, at, y) {
  text(16, top + 14, title, " font-size=\"15\" font-weight=\"bold\"")
  top += 34
  most_x = requests
  most_y = mib
  each = step(mib)
  for (at = 0; at <= mib; at += each) {
    y = top + tall * (1 - at / mib)
    printf "<path d=\"M%d %.1fh%d\" stroke=\"%s\"/>\n", left, y, wide, (at ? "#e3e7eb" : "#666") >svg
    text(left - 8, y + 4, at, " text-anchor=\"end\"")
  }
  each = step(requests)
  for (at = 0; at <= requests; at += each) {
    printf "<path d=\"M%.1f %dv5\" stroke=\"#666\"/>\n", left + wide * at / requests, top + tall >svg
    text(left + wide * at / requests, top + tall + 19, commas(at), " text-anchor=\"middle\"")
  }
  text(left + wide / 2, top + tall + 38, "requests", " text-anchor=\"middle\"")
  printf "<text transform=\"translate(26 %.0f) rotate(-90)\" text-anchor=\"middle\">MiB resident</text>\n", top + tall / 2 >svg
}

function y_of(kib) { return top + tall * (1 - kib / 1024 / most_y) }

# Of the points in one column of the picture only the least and the most are drawn.
function curve(which, colour, i, x, low, high) {
  printf "<path fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" stroke-linejoin=\"round\" d=\"", colour >svg
  for (i = 1; i <= n[which] && requests[which, i] <= most_x; ++i) {
    if (i == 1 || int(wide * requests[which, i] / most_x) != x) {
      if (i > 1) printf "%s%d %.1fV%.1f", (x == first_x ? "M" : "L"), left + x, y_of(low), y_of(high) >svg
      x = int(wide * requests[which, i] / most_x)
      if (i == 1) first_x = x
      low = high = resident[which, i]
    }
    if (resident[which, i] < low) low = resident[which, i]
    if (resident[which, i] > high) high = resident[which, i]
  }
  printf "L%d %.1fV%.1f\"/>\n", left + x, y_of(low), y_of(high) >svg
}

# The mean of the points from `first` to `last`, and what they lie between.
function look(which, first, last, i) {
  mean = most = 0
  least = resident[which, first]
  for (i = first; i <= last; ++i) {
    mean += resident[which, i] / (last - first + 1)
    if (resident[which, i] > most) most = resident[which, i]
    if (resident[which, i] < least) least = resident[which, i]
  }
}

# "N requests, N us each, N KiB resident, N greenlets, N stacks in use, N mapped, N collections, N found unreachable"
FNR == 1 { ++which }
{
  if ($1 == requests[which, n[which]]) next  # once more, after it has been collected at last
  requests[which, ++n[which]] = $1
  us[which] = $3
  resident[which, n[which]] = $6
  greenlets[which, n[which]] = $9
  stacks[which, n[which]] = $15
  collections[which, n[which]] = $17
}

END {
  last = n[1]
  if (last < 10 || n[2] < 10) { print "too few requests"; exit 1 }
  print "reclaimed: requests, KiB resident, in the tenth that ends here: least, mean, most; greenlets, stacks mapped, collections"
  for (i = 1; i <= 10; ++i) {
    at = int(last * i / 10)
    look(1, int(last * (i - 1) / 10) + 1, at)
    means[i] = mean
    printf "%10d %8d %8d %8.0f %8d %8d %8d %8d\n", requests[1, at], resident[1, at], least, mean, most, greenlets[1, at], stacks[1, at], collections[1, at]
  }
  printf "%.1f us of processor time for each request\n", us[1]
  printf "ignored: %d requests, %d KiB resident; %.1f us each\n", requests[2, n[2]], resident[2, n[2]], us[2]
  # A byte for each of a million requests would be a sixth more.
  flat = means[10] <= 1.1 * means[1]
  printf "the last tenth has %.2f of the first one's memory: %s\n", means[10] / means[1], flat ? "flat" : "NOT FLAT"

  left = 84; wide = 650; tall = 150; top = 14
  height = 2 * (tall + 94) + 62
  printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"780\" height=\"%d\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n", height >svg
  printf "<rect width=\"780\" height=\"%d\" fill=\"#fff\"/>\n", height >svg
  look(1, 1, last)
  axes("A program that leaks two suspended greenlets in each request, with the collector", requests[1, last], step(most / 1024) * (int(most / 1024 / step(most / 1024)) + 1))
  curve(1, "#2a7f3f")
  top += tall + 60
  end = resident[2, n[2]] / 1024
  axes("The same, and where they are ignored: the first " commas(requests[2, n[2]]) " requests", requests[2, n[2]], step(end) * (int(end / step(end)) + 1))
  curve(1, "#2a7f3f")
  curve(2, "#9aa5b1")
  text(left + wide * 0.6, y_of(0.62 * 1024 * end) - 10, "ignored", " text-anchor=\"end\"")
  text(left + wide * 0.6, y_of(most) - 6, "reclaimed, the default", " text-anchor=\"end\" font-weight=\"bold\"")
  top += tall + 60
  text(16, top, sprintf("Between %.1f and %.1f MiB resident in %s requests, with %s collections.", least / 1024, most / 1024, commas(requests[1, last]), commas(collections[1, last])), " font-size=\"11\" fill=\"#666\"")
  text(16, top + 16, sprintf("Each request takes %.1f \302\265s of processor time, marking included; %.1f \302\265s where they are ignored.", us[1], us[2]), " font-size=\"11\" fill=\"#666\"")
  text(16, top + 32, "examples/leaky, drawn by make bench-gc; " machine, " font-size=\"11\" fill=\"#666\"")
  print "</svg>" >svg
  exit !flat
}
