// A part of the page that failed is replaced by a line that says so; the rest goes on.
import { Component, type ErrorInfo, type ReactNode } from "react";

interface Props {
  /** What failed, as a sentence begins: "The chat". */
  what: string;
  children: ReactNode;
}

export class Failure extends Component<Props, { failed: boolean }> {
  override state = { failed: false };

  static getDerivedStateFromError() {
    return { failed: true };
  }

  override componentDidCatch(error: Error, info: ErrorInfo) {
    // reportError reaches window.onerror and the console like an uncaught error would.
    reportError(
      new Error(`${this.props.what}: ${error.message}${info.componentStack ?? ""}`, { cause: error }),
    );
  }

  override render() {
    if (!this.state.failed) return this.props.children;
    return (
      <div className="failure" role="alert">
        <p>{this.props.what} stopped because of a mistake on this page.</p>
        <button type="button" className="button small" onClick={() => this.setState({ failed: false })}>
          Start it again
        </button>
      </div>
    );
  }
}
