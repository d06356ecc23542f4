// Names the days of conversations as people do: Today, Yesterday, Previous 7 days, then months.

const DAY_MS = 24 * 60 * 60 * 1000;

/** The group of a time, as seen on the day of `now`. Both are Dates. */
export function groupOf(time, now = new Date()) {
  // Days differ in length where clocks are changed, so midnights are compared, rounded.
  const days = Math.round((midnight(now) - midnight(time)) / DAY_MS);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  if (days <= 7) return "Previous 7 days";
  const isThisYear = time.getFullYear() === now.getFullYear();
  return time.toLocaleDateString("en", { month: "long", ...(!isThisYear && { year: "numeric" }) });
}

const midnight = (time) => new Date(time.getFullYear(), time.getMonth(), time.getDate()).getTime();
