// After `next build`: the standalone server does not contain the files of the pages.

import { cpSync } from "node:fs";

cpSync(".next/static", ".next/standalone/.next/static", { recursive: true });
