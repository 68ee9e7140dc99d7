import "@fontsource-variable/geist/wght.css";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/shell.css";
import "./styles/todos.css";
import "./styles/chat.css";
import "./styles/edge.css";
import "./styles/tasks.css";
// Those of parts that are fetched later, too: Vite asks for a later style sheet only once, and the network may be away just then.
import "uplot/dist/uPlot.min.css";
import "./styles/fleet.css";
import "./styles/logs.css";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { applyTheme } from "./ui/theme";

applyTheme();
const queries = new QueryClient();
const root = document.getElementById("root");
if (!root) throw new Error("index.html has no #root");
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={queries}>
      <App />
    </QueryClientProvider>
  </StrictMode>,
);
