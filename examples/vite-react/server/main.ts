// The built page and its server in one process, on this machine alone unless HOST says otherwise.

// First: the other modules read the environment.
import "./environment";
import { serve } from "@hono/node-server";
import { serveStatic } from "@hono/node-server/serve-static";
import { app } from "./app";
import { pageHeaders } from "./page-headers";

app.use("*", pageHeaders);
app.use("*", serveStatic({ root: "dist/client" }));

serve({ fetch: app.fetch, hostname: process.env.HOST ?? "127.0.0.1", port: Number(process.env.PORT ?? 3000) });
