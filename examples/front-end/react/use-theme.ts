"use client";

import { useEffect, useState } from "react";

export type Theme = "light" | "dark";
const KEPT = "theme";

/** The system's theme, until the user has chosen one. */
export function useTheme(): [Theme, () => void] {
  const [theme, setTheme] = useState<Theme>("light");
  useEffect(() => {
    const system = matchMedia("(prefers-color-scheme: dark)");
    const apply = () => setTheme((localStorage.getItem(KEPT) as Theme | null) ?? (system.matches ? "dark" : "light"));
    apply();
    system.addEventListener("change", apply);
    return () => system.removeEventListener("change", apply);
  }, []);
  useEffect(() => void (document.documentElement.style.colorScheme = theme), [theme]);
  const toggle = () => {
    const other = theme === "dark" ? "light" : "dark";
    localStorage.setItem(KEPT, other);
    setTheme(other);
  };
  return [theme, toggle];
}
